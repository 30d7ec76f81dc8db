//! Looking up offsets by time, and the two ends of a partition.

use tidelog_protocol::messages::ListOffsetsRequest;
use tidelog_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use tidelog_protocol::types::{Offset, TimestampMs, TopicPartition};

use super::{Admin, only};
use crate::error::Error;

/// Which offset is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first one that is retained.
    Earliest,
    /// One past the last one.
    Latest,
    /// The first record whose time is at or after this one.
    AtTime(TimestampMs),
}

/// An offset that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; `None` when no record is as late as the time asked for.
    pub offset: Option<Offset>,
    /// Time of the record there; [`TimestampMs::NONE`] for the two ends.
    pub timestamp: TimestampMs,
}

impl OffsetSpec {
    fn wire(self) -> i64 {
        match self {
            OffsetSpec::Latest => -1,
            OffsetSpec::Earliest => -2,
            OffsetSpec::AtTime(time) => time.0.max(0),
        }
    }
}

impl Admin {
    /// Looks up an offset of one partition.
    pub async fn list_offset(
        &self,
        of: &TopicPartition,
        spec: OffsetSpec,
    ) -> Result<ListedOffset, Error> {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(of.partition.0)
            .with_timestamp(spec.wire());
        let topic = ListOffsetsTopic::default()
            .with_name((&of.topic).into())
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        self.ask_leader(of, request, |reply| {
            let found = only(only(reply.topics)?.partitions)?;
            Error::check(found.error_code, None)?;
            Ok(ListedOffset {
                offset: (found.offset >= 0).then_some(Offset(found.offset)),
                timestamp: TimestampMs(found.timestamp),
            })
        })
        .await
    }

    /// The offset where a reader that starts by `spec` begins: a time later than every record is the end.
    pub async fn start_offset(
        &self,
        of: &TopicPartition,
        spec: OffsetSpec,
    ) -> Result<Offset, Error> {
        match self.list_offset(of, spec).await?.offset {
            Some(offset) => Ok(offset),
            None => {
                let end = self.list_offset(of, OffsetSpec::Latest).await?;
                Ok(end.offset.unwrap_or_default())
            }
        }
    }
}
