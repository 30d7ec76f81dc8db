//! The broker's door to everything that is agreed.

use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId, TopicPartition};
use tidelog_storage::manager::LogManager;

use crate::controller::Controller;
use crate::errors::{StartError, WaitLedError};
use crate::metadata::image::MetadataImage;
use crate::options::ReplicationOptions;
use crate::partition::Partition;

/// All consensus groups of this broker.
#[derive(Debug)]
pub struct Replication {}

impl Replication {
    /// Starts: on return the controller is led, the image loaded, this broker registered, its partitions led (those
    /// whose log failed are offline and were logged).
    pub async fn start(
        _options: ReplicationOptions,
        _logs: Arc<LogManager>,
    ) -> Result<Arc<Replication>, StartError> {
        unimplemented!()
    }

    /// This broker's id.
    pub fn broker(&self) -> BrokerId {
        unimplemented!()
    }

    /// The controller.
    pub fn controller(&self) -> &Controller {
        unimplemented!()
    }

    /// The newest image.
    pub fn image(&self) -> Arc<MetadataImage> {
        unimplemented!()
    }

    /// A partition hosted here.
    pub fn partition(&self, _topic: TopicId, _partition: PartitionIndex) -> Option<Arc<Partition>> {
        unimplemented!()
    }

    /// A partition hosted here, by name.
    pub fn partition_by_name(&self, _partition: &TopicPartition) -> Option<Arc<Partition>> {
        unimplemented!()
    }

    /// All partitions hosted here, in no order.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        unimplemented!()
    }

    /// Waits until the image names a leader for each partition of the topic.
    pub async fn wait_led(&self, _topic: TopicId, _timeout: Duration) -> Result<(), WaitLedError> {
        unimplemented!()
    }

    /// Stops all groups; what was acknowledged is on disk. The log manager is the caller's to shut down.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}
