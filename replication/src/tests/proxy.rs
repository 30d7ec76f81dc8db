//! A proxy on the way from one broker to another, which can be told to misbehave, and where brokers are.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidelog_protocol::types::BrokerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{PeerAddress, PeerDirectory};

/// How a proxy behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Connections are closed, and new ones as soon as they are made.
    pub refuse: bool,
    /// What the connecting side sends waits.
    pub stall_requests: bool,
    /// What the accepting side sends waits.
    pub stall_answers: bool,
    /// Pause after each 16 KiB.
    pub pause: Duration,
    /// Connections made before it changed are closed.
    pub round: u64,
}

/// See the module. Ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    passed: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy to a listener.
    pub async fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let mode = watch::Sender::new(Mode::default());
        let (passed, accepted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        let modes = mode.subscribe();
        let (counted, connections) = (passed.clone(), accepted.clone());
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                open.spawn(carry(stream, target, modes.clone(), counted.clone()));
                while open.try_join_next().is_some() {}
            }
        });
        Proxy {
            address,
            mode,
            passed,
            accepted,
            _tasks: tasks,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how it behaves.
    pub fn change(&self, change: impl FnOnce(&mut Mode)) {
        self.mode.send_modify(change);
    }

    /// Closes all connections; new ones may be made.
    pub fn kill_connections(&self) {
        self.change(|mode| mode.round += 1);
    }

    /// Bytes that the connecting side sent, and which were passed on.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Connections that were made to it.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn carry(
    stream: TcpStream,
    target: SocketAddr,
    mut modes: watch::Receiver<Mode>,
    passed: Arc<AtomicU64>,
) {
    let round = modes.borrow().round;
    if modes.borrow().refuse {
        return;
    }
    let Ok(further) = TcpStream::connect(target).await else {
        return;
    };
    let (from, to) = (stream.into_split(), further.into_split());
    let (requests, answers) = (modes.clone(), modes.clone());
    tokio::select! {
        () = copy(from.0, to.1, requests, |mode| mode.stall_requests, Some(passed)) => {}
        () = copy(to.0, from.1, answers, |mode| mode.stall_answers, None) => {}
        _ = modes.wait_for(|mode| mode.refuse || mode.round != round) => {}
    }
}

/// Copies until one end closes.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    stalls: fn(&Mode) -> bool,
    passed: Option<Arc<AtomicU64>>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if modes.wait_for(|mode| !stalls(mode)).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        if let Some(passed) = &passed {
            passed.fetch_add(read as u64, Ordering::Relaxed);
        }
        let pause = modes.borrow().pause;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Addresses that a test sets.
#[derive(Debug, Default)]
pub struct Directory {
    addresses: Mutex<HashMap<BrokerId, SocketAddr>>,
    changed: watch::Sender<u64>,
}

impl Directory {
    /// A broker is there from now on.
    pub fn set(&self, broker: BrokerId, address: SocketAddr) {
        self.addresses.lock().insert(broker, address);
        self.changed.send_modify(|version| *version += 1);
    }
}

impl PeerDirectory for Directory {
    fn address(&self, broker: BrokerId) -> Option<PeerAddress> {
        let address = *self.addresses.lock().get(&broker)?;
        Some(PeerAddress {
            host: address.ip().to_string(),
            port: address.port(),
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
