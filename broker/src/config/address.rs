//! Addresses in properties: `host:port`, and Kafka's `NAME://host:port`.
//!
//! Owns their syntax. Resolves no names and opens no sockets.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// A host, which may be a name, and a port. An empty host means all interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address without brackets.
    pub host: Arc<str>,
    /// Port; 0 lets the system choose.
    pub port: u16,
}

/// Security protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecurityProtocol {
    /// Neither encryption nor authentication.
    Plaintext,
}

/// One entry of `listeners` or `advertised.listeners`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    /// Name in capitals, as clients never see it and `listener.security.protocol.map` maps it.
    pub name: Arc<str>,
    /// Security protocol.
    pub protocol: SecurityProtocol,
    /// Where it binds, or what is advertised.
    pub address: HostPort,
}

impl HostPort {
    /// Parses `host:port` and `[v6]:port`.
    pub fn parse(text: &str) -> Result<HostPort, String> {
        let expected = || format!("'{text}' is not of the form host:port");
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let port = port
            .parse::<u16>()
            .map_err(|_| format!("'{port}' is not a port (0 to 65535) in '{text}'"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(expected)?,
            None if host.contains(':') => {
                return Err(format!("an IPv6 address needs brackets: '[{host}]:{port}'"));
            }
            None => host,
        };
        if host.chars().any(|c| c.is_whitespace() || c == '/') {
            return Err(expected());
        }
        Ok(HostPort {
            host: Arc::from(host),
            port,
        })
    }

    /// Whether a socket bound here accepts connections from this machine only.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether a socket bound here listens on all interfaces, so that it cannot be advertised.
    pub fn is_unspecified(&self) -> bool {
        self.host.is_empty()
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, self.address)
    }
}

/// Parses `listener.security.protocol.map`: listener name to security protocol, both in capitals.
pub fn parse_protocol_map(entries: &[String]) -> Result<HashMap<String, String>, String> {
    let mut map = HashMap::new();
    for entry in entries {
        let (name, protocol) = entry
            .split_once(':')
            .ok_or_else(|| format!("'{entry}' is not of the form NAME:PROTOCOL"))?;
        let name = name.trim().to_ascii_uppercase();
        if map
            .insert(name.clone(), protocol.trim().to_ascii_uppercase())
            .is_some()
        {
            return Err(format!("listener name '{name}' is mapped twice"));
        }
    }
    Ok(map)
}

/// Parses the entries of `listeners` or `advertised.listeners`, leaving out the names in `skip`.
pub fn parse_listeners(
    entries: &[String],
    protocols: &HashMap<String, String>,
    skip: &[String],
) -> Result<Vec<Listener>, String> {
    let mut listeners: Vec<Listener> = Vec::new();
    for entry in entries {
        let (name, address) = entry
            .split_once("://")
            .ok_or_else(|| format!("'{entry}' is not of the form NAME://host:port"))?;
        let name = name.trim().to_ascii_uppercase();
        if skip.iter().any(|s| s.eq_ignore_ascii_case(&name)) {
            continue;
        }
        let address = HostPort::parse(address.trim())?;
        let protocol = match protocols.get(&name).map(String::as_str) {
            Some("PLAINTEXT") => SecurityProtocol::Plaintext,
            Some(other) => {
                return Err(format!(
                    "listener '{name}' has security protocol '{other}', which Tidelog does not have yet; only PLAINTEXT is"
                ));
            }
            None => {
                return Err(format!(
                    "listener name '{name}' is not in listener.security.protocol.map"
                ));
            }
        };
        if listeners.iter().any(|l| *l.name == *name) {
            return Err(format!("listener name '{name}' is used twice"));
        }
        listeners.push(Listener {
            name: Arc::from(name),
            protocol,
            address,
        });
    }
    Ok(listeners)
}
