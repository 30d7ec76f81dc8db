//! One replica without a broker around it.

use std::sync::Arc;

use tidelog_protocol::types::TopicPartition;
use tidelog_storage::log::{EntryId, PartitionLog};
use tokio::sync::Semaphore;

use crate::control::ControlClient;
use crate::notices::Notices;
use crate::partition::shared::{Budgets, PartitionShared};
use crate::raft::types::{GroupId, ReplicaId};
use crate::throttle::Throttles;

/// Those of a broker that is alone.
pub fn throttles(me: ReplicaId) -> Arc<Throttles> {
    Arc::new(Throttles::new(Arc::new(ControlClient::new(me, None))))
}

/// What the parts of a replica share that has this log; `had` as in [`PartitionShared::new`].
pub fn shared(me: ReplicaId, log: &Arc<PartitionLog>, had: EntryId) -> Arc<PartitionShared> {
    noted(me, log, had, Arc::default())
}

/// The same, of a broker that keeps notice of it.
pub fn noted(
    me: ReplicaId,
    log: &Arc<PartitionLog>,
    had: EntryId,
    notices: Arc<Notices>,
) -> Arc<PartitionShared> {
    let group = GroupId {
        topic: log.topic_id(),
        partition: log.partition(),
    };
    let name = TopicPartition {
        topic: log.topic().clone(),
        partition: log.partition(),
    };
    let budgets = Budgets {
        partition: 1 << 20,
        broker: Arc::new(Semaphore::new(1 << 20)),
    };
    let shared = PartitionShared::new(group, name, me, log.clone(), had, budgets, notices);
    Arc::new(shared)
}
