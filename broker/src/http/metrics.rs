//! The metrics of the process in Prometheus' text format.
//!
//! Counters and histograms are kept where things happen; gauges of what merely is are read when somebody asks.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tikv_jemalloc_ctl::{epoch, stats};

use crate::server::Broker;

/// Bounds of the histograms, in seconds: from a cached fetch to a parked one.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 30.0,
];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Makes this process keep metrics; does so once. `None` if somebody else already keeps them.
pub(super) fn recorder() -> Option<&'static PrometheusHandle> {
    let install = || {
        PrometheusBuilder::new()
            .set_buckets(SECONDS)
            .ok()?
            .install_recorder()
            .ok()
    };
    RECORDER.get_or_init(install).as_ref()
}

/// All metrics as text.
pub(super) fn render(broker: Option<&Broker>) -> String {
    if let Some(broker) = broker {
        read_gauges(broker);
    }
    read_allocator();
    match recorder() {
        Some(recorder) => {
            recorder.run_upkeep();
            recorder.render()
        }
        None => String::new(),
    }
}

fn read_gauges(broker: &Broker) {
    let image = broker.replication.image();
    let partitions = broker.replication.partitions();
    let led = partitions
        .iter()
        .filter(|partition| partition.state().is_leader())
        .count();
    metrics::gauge!("tidelog_topics").set(image.topic_count() as f64);
    metrics::gauge!("tidelog_partitions").set(partitions.len() as f64);
    metrics::gauge!("tidelog_partitions_led").set(led as f64);
    metrics::gauge!("tidelog_partitions_asleep").set(broker.replication.asleep() as f64);
    metrics::gauge!("tidelog_fetch_sessions").set(broker.fetch_sessions.len() as f64);
    metrics::gauge!("tidelog_request_memory_used_bytes").set(broker.memory.used_bytes() as f64);
    metrics::gauge!("tidelog_request_memory_total_bytes").set(broker.memory.total_bytes() as f64);
    if let Ok(space) = broker.logs.space() {
        metrics::gauge!("tidelog_disk_available_bytes").set(space.available_bytes as f64);
        metrics::gauge!("tidelog_disk_total_bytes").set(space.total_bytes as f64);
    }
}

fn read_allocator() {
    // The statistics are as of the last epoch. Without them there is nothing to say.
    if epoch::advance().is_err() {
        return;
    }
    if let (Ok(allocated), Ok(resident)) = (stats::allocated::read(), stats::resident::read()) {
        metrics::gauge!("tidelog_memory_allocated_bytes").set(allocated as f64);
        metrics::gauge!("tidelog_memory_resident_bytes").set(resident as f64);
    }
}
