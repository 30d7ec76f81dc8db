//! The journal's metrics. Handles are made once: the recorder must be installed before the journal is opened.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Handles of the metrics.
#[derive(Clone)]
pub(super) struct Meters {
    /// Payload bytes written.
    pub(super) bytes: Counter,
    pub(super) groups: Counter,
    pub(super) frames: Counter,
    sync_seconds: Histogram,
    /// Files in use: written and not reclaimed yet.
    pub(super) files_used: Gauge,
    pub(super) files: Gauge,
    pub(super) reclaims: Counter,
    /// Seconds that the writer waited for a file.
    stall_seconds: Histogram,
}

impl Meters {
    pub(super) fn new() -> Meters {
        Meters {
            bytes: counter!("tidelog_journal_bytes_total"),
            groups: counter!("tidelog_journal_groups_total"),
            frames: counter!("tidelog_journal_frames_total"),
            sync_seconds: histogram!("tidelog_journal_sync_seconds"),
            files_used: gauge!("tidelog_journal_files_used"),
            files: gauge!("tidelog_journal_files"),
            reclaims: counter!("tidelog_journal_reclaims_total"),
            stall_seconds: histogram!("tidelog_journal_stall_seconds"),
        }
    }

    pub(super) fn synced(&self, took: Duration) {
        self.sync_seconds.record(took);
    }

    pub(super) fn stalled(&self, took: Duration) {
        self.stall_seconds.record(took);
    }
}
