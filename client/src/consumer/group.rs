//! A consumer that shares topics with the other members of its group.
//!
//! Rebalances happen inside of [`GroupConsumer::poll`], heartbeats beside it. Invariant: only what the caller said it
//! has processed is ever committed, and it is committed before partitions are given up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::ErrorCode;
use tidelog_protocol::types::{Offset, TopicName, TopicPartition};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::membership::Membership;
use super::{ConsumedRecord, Consumer, ConsumerConfig};
use crate::admin::Admin;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::Error;

/// How a member takes part.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// The group.
    pub group_id: String,
    /// Makes it a static member, which keeps its partitions over a restart. Default none.
    pub instance_id: Option<String>,
    /// Silence after which the coordinator takes the member for dead. Default 45 s.
    pub session_timeout: Duration,
    /// Time between heartbeats. Default 3 s.
    pub heartbeat_interval: Duration,
    /// How long the group waits in a rebalance for a member that processes records. Default 5 minutes.
    pub rebalance_timeout: Duration,
    /// Time between commits of what was processed. Default 5 s.
    pub commit_interval: Duration,
    /// How it reads; `offset_reset` also says where to start without a commit.
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    /// The defaults.
    pub fn new(group_id: &str) -> Self {
        GroupConfig {
            group_id: group_id.to_owned(),
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(300),
            commit_interval: Duration::from_secs(5),
            consumer: ConsumerConfig::default(),
        }
    }
}

/// What the heartbeats learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// All is well.
    Member,
    /// The group rebalances.
    Rejoin,
    /// The coordinator does not know the member any more.
    Lost,
    /// Another process has taken the static member's place.
    Fenced,
}

/// Reads what the group gives it.
#[derive(Debug)]
pub struct GroupConsumer {
    admin: Admin,
    consumer: Consumer,
    config: Arc<GroupConfig>,
    membership: Membership,
    processed: BTreeMap<TopicPartition, Offset>,
    commit_at: Instant,
    standing: watch::Receiver<Standing>,
    heartbeats: Option<AbortHandle>,
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.stop_heartbeats();
    }
}

impl GroupConsumer {
    /// A member of a group, not joined yet: the first [`Self::poll`] does that.
    pub fn subscribe(client: Client, config: GroupConfig, topics: &[TopicName]) -> Self {
        let config = Arc::new(config);
        let client = client.with_own_connections();
        let (_, standing) = watch::channel(Standing::Rejoin);
        GroupConsumer {
            admin: Admin::new(client.clone()),
            consumer: Consumer::over(client.clone(), config.consumer.clone()),
            membership: Membership::new(client, config.clone(), topics.into()),
            commit_at: Instant::now() + config.commit_interval,
            config,
            processed: BTreeMap::new(),
            standing,
            heartbeats: None,
        }
    }

    /// The partitions that it reads at present.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.consumer.assignment()
    }

    /// The offset that is read next.
    pub fn position(&self, of: &TopicPartition) -> Option<Offset> {
        self.consumer.position(of)
    }

    /// Says that everything before `next` is processed. The next commit contains it.
    pub fn processed(&mut self, of: &TopicPartition, next: Offset) {
        self.processed.insert(of.clone(), next);
    }

    /// As [`Consumer::poll`]; joins the group first if it has to, which may take longer than `wait`, and commits
    /// what was processed when it is time.
    pub async fn poll(&mut self, wait: Duration) -> Result<Vec<ConsumedRecord>, Error> {
        let standing = *self.standing.borrow();
        match standing {
            Standing::Member => {}
            Standing::Fenced => return Err(Error::broker(ErrorCode::FencedInstanceId)),
            Standing::Lost => {
                self.membership.forget();
                self.rejoin().await?;
            }
            Standing::Rejoin => {
                if self.membership.is_member() {
                    // What cannot be committed now is read again by whoever gets the partition.
                    self.commit().await.ok();
                }
                self.rejoin().await?;
            }
        }
        if Instant::now() >= self.commit_at {
            self.commit_at = Instant::now() + self.config.commit_interval;
            match self.commit().await {
                Err(error) if !self.is_passing(&error) => return Err(error),
                _ => {}
            }
        }
        tokio::select! {
            records = self.consumer.poll(wait) => records,
            // The standing is looked at with the next poll.
            _ = self.standing.changed() => Ok(Vec::new()),
        }
    }

    /// Commits what was processed, now.
    pub async fn commit(&mut self) -> Result<(), Error> {
        if self.processed.is_empty() {
            return Ok(());
        }
        let offsets: Vec<_> = self
            .processed
            .iter()
            .map(|(of, next)| (of.clone(), *next))
            .collect();
        let mut backoff = Backoff::until(Instant::now() + self.config.heartbeat_interval);
        loop {
            match self.membership.commit(&offsets).await {
                Ok(()) => break,
                Err(error) if error.is_retriable() && backoff.wait().await => {}
                Err(error) => return Err(error),
            }
        }
        self.processed.clear();
        Ok(())
    }

    /// Commits what was processed and leaves the group.
    pub async fn close(mut self) -> Result<(), Error> {
        self.stop_heartbeats();
        let committed = if self.membership.is_member() {
            self.commit().await
        } else {
            Ok(())
        };
        let left = self.membership.leave().await;
        committed.and(left)
    }

    /// Whether a commit's error is mended by the rebalance that it tells of.
    fn is_passing(&self, error: &Error) -> bool {
        error.is_retriable() || standing_after(error) != Some(Standing::Fenced)
    }

    fn stop_heartbeats(&mut self) {
        if let Some(task) = self.heartbeats.take() {
            task.abort();
        }
    }

    async fn rejoin(&mut self) -> Result<(), Error> {
        self.stop_heartbeats();
        self.processed.clear();
        self.consumer.assign([]);
        let mut backoff = Backoff::until(Instant::now() + self.config.rebalance_timeout);
        let partitions = loop {
            let error = match self.join_and_sync().await {
                Ok(partitions) => break partitions,
                Err(error) => error,
            };
            match standing_after(&error) {
                // The id that the coordinator gave is used at once.
                None if error.is(ErrorCode::MemberIdRequired) => continue,
                Some(Standing::Lost) => self.membership.forget(),
                Some(Standing::Rejoin) => {}
                _ if error.is_retriable() => {}
                _ => return Err(error),
            }
            if !backoff.wait().await {
                return Err(error);
            }
        };
        let starts = self.starts(&partitions).await?;
        // No wait between the two: whoever drops the future must not leave a member that reads nothing.
        self.start_heartbeats();
        self.consumer.assign(starts);
        self.commit_at = Instant::now() + self.config.commit_interval;
        Ok(())
    }

    async fn join_and_sync(&mut self) -> Result<Vec<TopicPartition>, Error> {
        let joined = self.membership.join().await?;
        self.membership.sync(joined).await
    }

    /// Where to begin: after what the group committed, else where the configuration says.
    async fn starts(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let topics: Vec<_> = partitions.iter().map(|of| of.topic.clone()).collect();
        let committed = self
            .admin
            .client()
            .retry(&topics, async || {
                self.membership.committed(partitions).await
            })
            .await?;
        let mut starts = Vec::with_capacity(partitions.len());
        for of in partitions {
            let offset = match (committed.get(of), self.config.consumer.offset_reset.spec()) {
                (Some(offset), _) => *offset,
                (None, Some(spec)) => self.admin.start_offset(of, spec).await?,
                (None, None) => {
                    let error = format!("the group has committed nothing for {of}");
                    return Err(Error::Invalid(error));
                }
            };
            // Leaders are needed to fetch.
            self.admin.client().topic(&of.topic, false).await?;
            starts.push((of.clone(), offset));
        }
        Ok(starts)
    }

    fn start_heartbeats(&mut self) {
        let (report, standing) = watch::channel(Standing::Member);
        let membership = self.membership.clone();
        let interval = self.config.heartbeat_interval;
        let session = self.config.session_timeout;
        let task = tokio::spawn(heartbeats(membership, interval, session, report));
        self.heartbeats = Some(task.abort_handle());
        self.standing = standing;
    }
}

/// What a refusal says about the membership.
fn standing_after(error: &Error) -> Option<Standing> {
    const STANDINGS: [(ErrorCode, Standing); 4] = [
        (ErrorCode::RebalanceInProgress, Standing::Rejoin),
        (ErrorCode::IllegalGeneration, Standing::Rejoin),
        (ErrorCode::UnknownMemberId, Standing::Lost),
        (ErrorCode::FencedInstanceId, Standing::Fenced),
    ];
    STANDINGS
        .iter()
        .find(|(code, _)| error.is(*code))
        .map(|(_, standing)| *standing)
}

/// Keeps the membership alive until it changes. Lost connections are not a change: the session time-out is.
async fn heartbeats(
    membership: Membership,
    interval: Duration,
    session: Duration,
    report: watch::Sender<Standing>,
) {
    let mut heard = Instant::now();
    loop {
        tokio::time::sleep(interval).await;
        let standing = match membership.heartbeat().await {
            Ok(()) => {
                heard = Instant::now();
                None
            }
            Err(error) => {
                tracing::debug!(%error, "heartbeat");
                standing_after(&error)
            }
        };
        let standing = standing.or((heard.elapsed() > session).then_some(Standing::Rejoin));
        if let Some(standing) = standing {
            report.send_replace(standing);
            return;
        }
    }
}
