//! How the files that the process may hold open are shared between segments and connections.
//!
//! Invariant: what segments and connections may take leaves room for all else, so that clients that connect take no
//! file from the logs.

use rustix::process::{Resource, getrlimit};
use tracing::warn;

use crate::config::BrokerConfig;

/// Segment files, where the configuration does not say and the limit is high.
const SEGMENTS_MAX: usize = 4096;

/// Files of all else: the key-value store, the journal, folders while they are synced, HTTP, sockets that listen.
const OTHERS: usize = 512;

/// What each may hold open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenFiles {
    /// Segment files.
    pub(crate) segments: usize,
    /// Connections of clients, all listeners together.
    pub(crate) connections: usize,
}

impl OpenFiles {
    /// Shares what this process may open.
    pub(crate) fn of_process(config: &BrokerConfig) -> OpenFiles {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        let configured = config.storage.open_segment_files_max;
        OpenFiles::of(limit, configured.map(|files| files as usize))
    }

    /// At least one connection in any case: a broker without room for it would be of no use.
    fn of(limit: usize, segments: Option<usize>) -> OpenFiles {
        let segments = segments.unwrap_or(SEGMENTS_MAX.min(limit / 4));
        let rest = limit.saturating_sub(segments);
        OpenFiles {
            segments,
            connections: rest.saturating_sub(OTHERS.min(rest / 2)).max(1),
        }
    }

    /// Says so if more connections are configured than there is room for. Kafka's default asks for no number.
    pub(crate) fn check(&self, max_connections: usize) {
        let no_number = usize::try_from(i32::MAX).unwrap_or(usize::MAX);
        if max_connections > self.connections && max_connections != no_number {
            warn!(
                max_connections,
                taken = self.connections,
                "max.connections is more than the open-file limit has room for beside the segments"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_connections_leave_room_for_all_else() {
        for limit in [256, 1024, 20_000, 1 << 20, usize::MAX] {
            let files = OpenFiles::of(limit, None);
            let others = limit - files.segments - files.connections;
            assert!(others >= OTHERS.min(limit / 4), "{limit}: {files:?}");
            assert!(files.segments >= limit.min(SEGMENTS_MAX) / 4, "{limit}");
            assert!(files.connections >= limit / 4, "{limit}: {files:?}");
        }
        let configured = OpenFiles::of(20_000, Some(15_000));
        assert_eq!(
            (configured.segments, configured.connections),
            (15_000, 4_488)
        );
        assert_eq!(OpenFiles::of(1000, Some(5000)).connections, 1);
    }
}
