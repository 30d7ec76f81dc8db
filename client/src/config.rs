//! What every part of the client shares: where the cluster is, and how long to wait.

use std::time::Duration;

use tidelog_protocol::limits;

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Addresses (`host:port`) that are asked for the others; one that answers is enough.
    pub bootstrap: Vec<String>,
    /// What the client calls itself in the broker's logs. Default `tidelog`.
    pub client_id: String,
    /// How long a connection may take to be made. Default 10 s.
    pub connect_timeout: Duration,
    /// How long one request may wait for its reply. Default 30 s.
    pub request_timeout: Duration,
    /// How long a call may take with all its retries. Default 60 s.
    pub call_timeout: Duration,
    /// Age at which what is known of a topic is asked for again. Default 5 minutes.
    pub metadata_age_max: Duration,
    /// Largest reply that is read. Default and maximum: 100 MiB.
    pub frame_bytes_max: usize,
}

impl ClientConfig {
    /// The defaults, with a comma-separated list of addresses.
    pub fn new(bootstrap: &str) -> Self {
        ClientConfig {
            bootstrap: bootstrap
                .split(',')
                .map(str::trim)
                .filter(|address| !address.is_empty())
                .map(str::to_owned)
                .collect(),
            client_id: "tidelog".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(60),
            metadata_age_max: Duration::from_secs(300),
            frame_bytes_max: limits::FRAME_BYTES_MAX,
        }
    }
}
