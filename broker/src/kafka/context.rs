//! What a handler knows about the request that it answers: the broker, the connection, the header.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tidelog_protocol::frame::RequestHeader;

use crate::server::Broker;

/// A client connection, as handlers see it.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Number of the connection, unique in this process.
    pub id: u64,
    /// Name of the listener that accepted it, as `listeners` spells it.
    pub listener: Arc<str>,
    /// Address of the client.
    pub peer: SocketAddr,
    software: Mutex<Option<Arc<ClientSoftware>>>,
}

/// What a client said about itself in ApiVersions (KIP-511).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSoftware {
    /// Name of the client library.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// One request on its way through the broker.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The broker's shared state.
    pub broker: Arc<Broker>,
    /// The connection that it came in on.
    pub connection: Arc<ConnectionInfo>,
    /// API, version, correlation id, client id.
    pub header: RequestHeader,
}

impl ConnectionInfo {
    /// A connection whose client has not said yet what it is.
    pub fn new(id: u64, listener: Arc<str>, peer: SocketAddr) -> ConnectionInfo {
        ConnectionInfo {
            id,
            listener,
            peer,
            software: Mutex::new(None),
        }
    }

    /// What the client said that it is.
    pub fn software(&self) -> Option<Arc<ClientSoftware>> {
        self.software.lock().clone()
    }

    /// Notes what the client says that it is.
    pub fn set_software(&self, software: ClientSoftware) {
        *self.software.lock() = Some(Arc::new(software));
    }
}

impl RequestContext {
    /// Version of the request, and of the reply.
    pub fn version(&self) -> i16 {
        self.header.api_version
    }

    /// What the client calls itself; empty if nothing.
    pub fn client_id(&self) -> &str {
        self.header.client_id.as_ref().map_or("", |id| id.as_str())
    }
}
