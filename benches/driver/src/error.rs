//! Why a run ended without a result.

use std::io;

use tidelog_protocol::ErrorCode;

/// Why a run ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The plan cannot be carried out.
    #[error("{0}")]
    Plan(String),
    /// A connection could not be made, or was lost.
    #[error("connection to {address}: {source}")]
    Connection {
        /// host:port of the broker.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// No reply came for as long as the plan waits.
    #[error("{address} did not answer in {seconds} s")]
    TimedOut {
        /// host:port of the broker.
        address: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The broker has no version of the request that the driver can write.
    #[error("{address} has no {api} request between versions {min} and {max}")]
    Unsupported {
        /// host:port of the broker.
        address: String,
        /// Name of the request.
        api: &'static str,
        /// Oldest version that the driver writes.
        min: i16,
        /// Newest version that the driver writes.
        max: i16,
    },
    /// A reply cannot be read.
    #[error("{address} sent what is not understood: {reason}")]
    Malformed {
        /// host:port of the broker.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A reply carries an error.
    #[error("{address} refused: {} ({code})", words(*.code))]
    Refused {
        /// host:port of the broker.
        address: String,
        /// Kafka's error code.
        code: i16,
    },
    /// A figure of a process cannot be read.
    #[error("process {pid}: {source}")]
    Process {
        /// The process id.
        pid: u32,
        /// What the system says.
        source: io::Error,
    },
}

fn words(code: i16) -> String {
    ErrorCode::try_from_code(code).map_or_else(|| "unknown error".to_owned(), |e| e.to_string())
}
