//! A log in memory, and clients of a shard.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::types::{
    LeaderEpoch, Offset, PartitionIndex, TopicId, TopicName, TopicPartition,
};
use tidelog_storage::kv::MemoryKv;
use tidelog_storage::log::LogId;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::super::handle::{ShardHandle, ShardSender, ShardStart};
use super::super::request::ShardRequest;
use crate::coordinator::group::*;
use crate::coordinator::offsets_log::{AppendFailure, LogFuture, OffsetsLog, ReadFailure};
use crate::coordinator::topic_registry::TopicRegistry;

/// A log that keeps its batches in memory; appends wait for a permit and may be told to fail.
#[derive(Debug)]
pub(super) struct MemoryLog {
    pub(super) batches: Arc<Mutex<Vec<RecordBatch>>>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) fail_next: Arc<Mutex<Option<AppendFailure>>>,
    pub(super) reads: AtomicUsize,
    pub(super) leads: AtomicBool,
}

impl MemoryLog {
    pub(super) fn new() -> Arc<MemoryLog> {
        Arc::new(MemoryLog {
            batches: Arc::default(),
            permits: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            fail_next: Arc::default(),
            reads: AtomicUsize::new(0),
            leads: AtomicBool::new(true),
        })
    }

    pub(super) fn end(&self) -> Offset {
        self.batches
            .lock()
            .last()
            .map_or(Offset(0), |batch| Offset(batch.last_offset().0 + 1))
    }
}

impl OffsetsLog for MemoryLog {
    fn id(&self) -> LogId {
        LogId(7)
    }

    fn ready(&self) -> LogFuture<Result<Range<Offset>, ReadFailure>> {
        let ready = if self.leads.load(Ordering::Relaxed) {
            Ok(Offset(0)..self.end())
        } else {
            Err(ReadFailure::NotLeader)
        };
        Box::pin(async move { ready })
    }

    fn read_blocking(&self, from: Offset, upto: Offset) -> Result<Vec<RecordBatch>, ReadFailure> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let batches = self.batches.lock();
        Ok(batches
            .iter()
            .filter(|b| b.last_offset() >= from && b.base_offset() < upto)
            .take(2)
            .cloned()
            .collect())
    }

    fn append(&self, mut batch: RecordBatch) -> LogFuture<Result<Offset, AppendFailure>> {
        let (batches, permits, fail_next) = (
            self.batches.clone(),
            self.permits.clone(),
            self.fail_next.clone(),
        );
        Box::pin(async move {
            permits.acquire().await.expect("never closed").forget();
            if let Some(failure) = fail_next.lock().take() {
                return Err(failure);
            }
            let mut batches = batches.lock();
            let base = batches
                .last()
                .map_or(0, |batch: &RecordBatch| batch.last_offset().0 + 1);
            batch.stamp(Offset(base), LeaderEpoch(1));
            let next = Offset(batch.last_offset().0 + 1);
            batches.push(batch);
            Ok(next)
        })
    }
}

/// The topics of the fixture's cluster: all but those that begin with "gone".
fn topic_id(name: &TopicName) -> Option<TopicId> {
    (!name.as_str().starts_with("gone")).then_some(TopicId(Uuid::from_u128(1)))
}

/// A shard, its log and its store; both survive a restart.
pub(super) struct Fixture {
    pub(super) log: Arc<MemoryLog>,
    pub(super) store: Arc<MemoryKv>,
    pub(super) handle: ShardHandle,
    settings: GroupSettings,
    next_token: Arc<AtomicUsize>,
}

impl Fixture {
    pub(super) async fn start() -> Fixture {
        let settings = GroupSettings {
            initial_rebalance_delay_ms: 0,
            session_timeout_min_ms: 1,
            ..GroupSettings::default()
        };
        let fixture = Fixture::start_on(
            MemoryLog::new(),
            Arc::new(MemoryKv::new().expect("starts")),
            settings,
        );
        fixture.serving().await;
        fixture
    }

    pub(super) fn start_on(
        log: Arc<MemoryLog>,
        store: Arc<MemoryKv>,
        settings: GroupSettings,
    ) -> Fixture {
        let handle = ShardHandle::start(ShardStart {
            log: log.clone(),
            store: store.clone(),
            settings: Arc::new(settings.clone()),
            retention_check_interval: Duration::from_secs(600),
            topics: Arc::new(TopicRegistry::new(Box::new(topic_id))),
            name: Arc::from("__consumer_offsets-0"),
        });
        Fixture {
            log,
            store,
            handle,
            settings,
            next_token: Arc::default(),
        }
    }

    /// Waits until requests are answered.
    pub(super) async fn serving(&self) {
        loop {
            match self.list().await {
                Err(GroupError::LoadInProgress) => {
                    tokio::time::sleep(Duration::from_millis(1)).await
                }
                _ => return,
            }
        }
    }

    pub(super) async fn stop(self) -> (Arc<MemoryLog>, Arc<MemoryKv>, GroupSettings) {
        self.handle
            .stop(GroupError::CoordinatorNotAvailable)
            .await
            .expect("ends well");
        (self.log, self.store, self.settings)
    }

    pub(super) async fn restart(self) -> Fixture {
        let (log, store, settings) = self.stop().await;
        let fixture = Fixture::start_on(log, store, settings);
        fixture.serving().await;
        fixture
    }

    pub(super) fn client(&self) -> Client {
        Client {
            shard: self.handle.sender(),
            next_token: self.next_token.clone(),
            session_ms: 30_000,
        }
    }

    pub(super) async fn list(&self) -> Result<usize, GroupError> {
        let (reply, answer) = oneshot::channel();
        self.handle
            .sender()
            .send(ShardRequest::List { reply })
            .await?;
        answer
            .await
            .map(|groups| groups.len())
            .map_err(|_| GroupError::NotCoordinator)
    }
}

/// Sends requests as connections do.
#[derive(Clone)]
pub(super) struct Client {
    shard: ShardSender,
    next_token: Arc<AtomicUsize>,
    pub(super) session_ms: u32,
}

impl Client {
    pub(super) async fn request(
        &self,
        group: &str,
        event: impl FnOnce(ReplyToken) -> Event,
    ) -> Result<Reply, GroupError> {
        let token = ReplyToken(self.next_token.fetch_add(1, Ordering::Relaxed) as u64);
        let (reply, answer) = oneshot::channel();
        let request = ShardRequest::Group {
            group: GroupId::from(group),
            token,
            event: event(token),
            reply,
        };
        self.shard.send(request).await?;
        answer.await.map_err(|_| GroupError::NotCoordinator)
    }

    pub(super) async fn commit(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), GroupError> {
        self.commit_as(group, None, Generation::NONE, topic, partition, offset)
            .await
    }

    pub(super) async fn commit_as(
        &self,
        group: &str,
        member: Option<&MemberId>,
        generation: Generation,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), GroupError> {
        let tp = TopicPartition {
            topic: TopicName::from(topic),
            partition: PartitionIndex(partition),
        };
        let offset = OffsetToCommit {
            offset: Offset(offset),
            leader_epoch: None,
            metadata: Arc::from(""),
        };
        let event = |token| {
            Event::Commit(Commit {
                token,
                member: member.cloned(),
                instance: None,
                generation,
                knows_group_not_found: true,
                retention_ms: None,
                offsets: vec![(tp, offset)],
            })
        };
        match self.request(group, event).await? {
            Reply::Commit(outcome) => outcome.map(drop),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn offset(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let tp = TopicPartition {
            topic: TopicName::from(topic),
            partition: PartitionIndex(partition),
        };
        let (reply, answer) = oneshot::channel();
        let group = GroupId::from(group);
        self.shard
            .send(ShardRequest::Fetch {
                group,
                partitions: Some(vec![tp]),
                reply,
            })
            .await
            .expect("serving");
        let (_, offset) = answer.await.expect("answered").remove(0);
        offset.map(|offset| offset.offset.0)
    }

    pub(super) async fn heartbeat(
        &self,
        group: &str,
        member: &MemberId,
        generation: Generation,
    ) -> Result<(), GroupError> {
        let beat = |token| {
            Event::Heartbeat(Heartbeat {
                token,
                member: member.clone(),
                instance: None,
                generation,
            })
        };
        match self.request(group, beat).await? {
            Reply::Heartbeat(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// Joins as a newcomer, without the MEMBER_ID_REQUIRED round trip.
    pub(super) async fn join(
        &self,
        group: &str,
        member: Option<&MemberId>,
    ) -> Result<Joined, GroupError> {
        let join = |token: ReplyToken| {
            Event::Join(Join {
                token,
                member: member.cloned(),
                instance: None,
                fresh_id: MemberId::from(format!("m{}", token.0).as_str()),
                client: ClientIdentity {
                    id: Arc::from("c"),
                    host: Arc::from("/h"),
                },
                timeouts: Timeouts {
                    session_ms: self.session_ms,
                    rebalance_ms: 60_000,
                },
                protocol_type: Arc::from("consumer"),
                protocols: vec![Protocol {
                    name: Arc::from("range"),
                    metadata: Bytes::from_static(b"\0\0\0\0\0\0"),
                }],
                charge: MemberCharge::default(),
                requires_known_member: false,
                knows_skip_assignment: true,
            })
        };
        match self.request(group, join).await? {
            Reply::Join(JoinReply::Joined(joined)) => Ok(*joined),
            Reply::Join(JoinReply::Refused { error, .. }) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn sync(
        &self,
        group: &str,
        joined: &Joined,
        assign: &HashMap<MemberId, Bytes>,
    ) -> Result<Bytes, GroupError> {
        let sync = |token| {
            Event::Sync(Sync {
                token,
                member: joined.member.clone(),
                instance: None,
                generation: joined.generation,
                protocol_type: None,
                protocol: None,
                assignments: assign.iter().map(|(m, a)| (m.clone(), a.clone())).collect(),
            })
        };
        match self.request(group, sync).await? {
            Reply::Sync(outcome) => outcome.map(|synced| synced.assignment),
            other => panic!("{other:?}"),
        }
    }

    /// A stable group of one.
    pub(super) async fn enter(&self, group: &str) -> Joined {
        let joined = self.join(group, None).await.expect("joins");
        let assign = HashMap::from([(joined.member.clone(), Bytes::from_static(b"all"))]);
        assert_eq!(
            self.sync(group, &joined, &assign).await,
            Ok(Bytes::from_static(b"all"))
        );
        joined
    }
}

/// Runs something beside the test.
pub(super) fn beside<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(work)
}
