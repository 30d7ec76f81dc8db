//! The Kafka listeners: binding, accepting, bounds on connections.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::config::HostPort;
use crate::kafka::connection;
use crate::kafka::context::ConnectionInfo;
use crate::server::Broker;

/// Pause after a failed accept: the process is out of file handles, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds all addresses of a host and port; they share the port that the first one gets.
///
/// An empty host means every interface. `localhost` has an IPv4 and an IPv6 address, and clients try either.
pub(crate) async fn bind(address: &HostPort, backlog: u32) -> io::Result<Vec<TcpListener>> {
    let mut port = address.port;
    let mut bound = Vec::new();
    let mut failure = None;
    for ip in resolve(address).await? {
        match listen(SocketAddr::new(ip, port), backlog) {
            Ok(listener) => {
                port = listener.local_addr()?.port();
                bound.push(listener);
            }
            // A machine without IPv6 still has the other address.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => failure = Some(error),
            Err(error) => return Err(error),
        }
    }
    match failure {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

async fn resolve(address: &HostPort) -> io::Result<Vec<IpAddr>> {
    if address.host.is_empty() {
        // One socket for both families, where there are both.
        let both = listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0), 1).is_ok();
        let any: IpAddr = if both {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        return Ok(vec![any]);
    }
    let mut ips: Vec<IpAddr> = lookup_host((&*address.host, address.port))
        .await?
        .map(|found| found.ip())
        .collect();
    ips.sort_unstable();
    ips.dedup();
    Ok(ips)
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    // Connections of the last run may still be in their closing states.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// Connections of all listeners.
#[derive(Debug)]
pub(crate) struct Connections {
    /// Beyond `max.connections`: what the process has files for.
    total_max: usize,
    next_id: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// A connection that is counted until this is dropped.
struct Counted {
    connections: Arc<Connections>,
    ip: IpAddr,
}

impl Connections {
    /// None yet, and never more than `total_max`.
    pub(crate) fn new(total_max: usize) -> Connections {
        Connections {
            total_max,
            next_id: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    fn admit(self: &Arc<Self>, ip: IpAddr, broker: &Broker) -> Option<Counted> {
        let config = broker.config();
        let network = &config.network;
        let overridden = network.max_connections_per_ip_overrides.get(&ip);
        let ip_max = *overridden.unwrap_or(&network.max_connections_per_ip);
        let mut open = self.open.lock();
        let of_ip = open.by_ip.get(&ip).copied().unwrap_or(0);
        if open.total >= network.max_connections.min(self.total_max) || of_ip >= ip_max {
            return None;
        }
        open.total += 1;
        open.by_ip.insert(ip, of_ip + 1);
        metrics::gauge!("tidelog_kafka_connections").set(open.total as f64);
        Some(Counted {
            connections: Arc::clone(self),
            ip,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.total = open.total.saturating_sub(1);
        if let Some(of_ip) = open.by_ip.get_mut(&self.ip) {
            *of_ip = of_ip.saturating_sub(1);
            if *of_ip == 0 {
                open.by_ip.remove(&self.ip);
            }
        }
        metrics::gauge!("tidelog_kafka_connections").set(open.total as f64);
    }
}

/// Accepts until the broker drains. Each connection is a task of `tasks`.
pub(crate) async fn accept(
    broker: Arc<Broker>,
    name: Arc<str>,
    listener: TcpListener,
    connections: Arc<Connections>,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = broker.draining.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => open(&broker, &name, socket, peer, &connections, &tasks),
            Err(error) => {
                warn!(listener = &*name, %error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn open(
    broker: &Arc<Broker>,
    name: &Arc<str>,
    socket: TcpStream,
    peer: SocketAddr,
    connections: &Arc<Connections>,
    tasks: &TaskTracker,
) {
    let ip = peer.ip().to_canonical();
    let Some(counted) = connections.admit(ip, broker) else {
        info!(%peer, listener = &**name, "connection refused: max.connections, max.connections.per.ip or the share of the open-file limit is reached");
        return;
    };
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%peer, %error, "connection ended before it began");
        return;
    }
    let id = connections.next_id.fetch_add(1, Ordering::Relaxed);
    let info = Arc::new(ConnectionInfo::new(id, Arc::clone(name), peer));
    let broker = Arc::clone(broker);
    tasks.spawn(async move {
        connection::serve(broker, info, socket).await;
        drop(counted);
    });
}
