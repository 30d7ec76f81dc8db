//! How many requests of each API, how long they take, how many end their connection; what comes in with them.

use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};
use tidelog_protocol::ErrorCode;
use tidelog_protocol::api::ApiKey;

/// A partition of a request was answered with an error.
pub(crate) fn count_partition_error(api: ApiKey, code: ErrorCode) {
    let (api, code) = (format!("{api:?}"), format!("{code:?}"));
    counter!("tidelog_kafka_partition_errors_total", "api" => api, "code" => code).increment(1);
}

/// The metrics of all APIs.
#[derive(Debug)]
pub struct RequestMetrics {
    by_api: Vec<(ApiKey, Arc<ApiMetrics>)>,
    traffic: Traffic,
}

/// What comes in. Counted with each request, and looked up once.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Bytes of requests, size prefixes included.
    pub(crate) received_bytes: Counter,
    /// Records that were given to their partitions.
    pub(crate) produced_records: Counter,
    /// Bytes of their batches.
    pub(crate) produced_bytes: Counter,
}

#[derive(Debug)]
struct ApiMetrics {
    requests: Counter,
    failed: Counter,
    seconds: Histogram,
}

/// Measures one request.
#[derive(Debug)]
pub(crate) struct RequestTimer {
    begun: Instant,
    metrics: Option<Arc<ApiMetrics>>,
}

impl RequestMetrics {
    /// Metrics of the APIs. Kept by the recorder that is installed when this is called.
    pub fn new(apis: impl Iterator<Item = ApiKey>) -> RequestMetrics {
        RequestMetrics {
            by_api: apis
                .map(|api| (api, Arc::new(ApiMetrics::new(api))))
                .collect(),
            traffic: Traffic {
                received_bytes: counter!("tidelog_kafka_received_bytes_total"),
                produced_records: counter!("tidelog_produced_records_total"),
                produced_bytes: counter!("tidelog_produced_bytes_total"),
            },
        }
    }

    /// What comes in.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Begins to measure a request that was read just now.
    pub(crate) fn begin(&self, api: ApiKey) -> RequestTimer {
        let metrics = self
            .by_api
            .iter()
            .find(|(key, _)| *key == api)
            .map(|(_, metrics)| Arc::clone(metrics));
        RequestTimer {
            begun: Instant::now(),
            metrics,
        }
    }
}

impl ApiMetrics {
    fn new(api: ApiKey) -> ApiMetrics {
        let api = format!("{api:?}");
        ApiMetrics {
            requests: counter!("tidelog_kafka_requests_total", "api" => api.clone()),
            failed: counter!("tidelog_kafka_requests_failed_total", "api" => api.clone()),
            seconds: histogram!("tidelog_kafka_request_seconds", "api" => api),
        }
    }
}

impl RequestTimer {
    /// Measures nothing: for requests that are answered before they are understood.
    pub(crate) fn none() -> RequestTimer {
        RequestTimer {
            begun: Instant::now(),
            metrics: None,
        }
    }

    /// The reply is ready, or the request failed in a way that ends the connection.
    pub(crate) fn end(&self, is_failed: bool) {
        if let Some(metrics) = &self.metrics {
            metrics.requests.increment(1);
            metrics.seconds.record(self.begun.elapsed());
            if is_failed {
                metrics.failed.increment(1);
            }
        }
    }
}
