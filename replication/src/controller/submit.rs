//! The way of a command to the controller's leader, here or on another broker, and of this broker's image to what the
//! leader knows.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, ForwardToLeader};
use openraft::raft::ClientWriteResult;
use tidelog_protocol::types::BrokerId;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::Controller;
use crate::control::{AskError, Reply, Request};
use crate::errors::{StartError, SubmitError};
use crate::metadata::command::{Command, MetadataError, Outcome};
use crate::metadata::levels::FEATURE_LEVEL_MIN;
use crate::metadata::record::{self, RecordError};
use crate::raft::types::{GroupCommand, GroupReply, GroupResponder, GroupTypes};

/// Pause between two tries to reach a leader that is just being elected.
const RETRY: Duration = Duration::from_millis(20);

/// Longest wait for this broker's image to show why a command was refused.
const REASON_SHOWN: Duration = Duration::from_secs(1);

/// How one try to carry out a command ended.
enum Tried {
    /// It was applied as this entry at the latest.
    Applied {
        result: Result<Outcome, MetadataError>,
        index: u64,
    },
    /// Nothing was written; this broker may lead, where known.
    NotHere(Option<BrokerId>),
}

impl Controller {
    /// Carries out a command, on whichever broker leads. Returns once it is committed and the image of this broker shows
    /// it.
    pub async fn submit(
        &self,
        command: Command,
        timeout: Duration,
    ) -> Result<Outcome, SubmitError> {
        let deadline = Instant::now() + timeout;
        let record = self.record_of(&command, deadline).await?;
        loop {
            let tried = timeout_at(deadline, self.try_submit(&record, deadline)).await;
            match tried.map_err(|_| SubmitError::Timeout)?? {
                Tried::Applied { result, index } => {
                    let shown = self.shared().wait_applied(index);
                    return match result {
                        Ok(outcome) => {
                            let shown = timeout_at(deadline, shown).await;
                            shown.map(|()| outcome).map_err(|_| SubmitError::Timeout)
                        }
                        Err(error) => {
                            // What it was refused for is worth a moment, but a broker that may not join never sees it.
                            let _ = timeout_at(deadline.min(Instant::now() + REASON_SHOWN), shown)
                                .await;
                            Err(SubmitError::from(error))
                        }
                    };
                }
                Tried::NotHere(controller) => {
                    if Instant::now() + RETRY >= deadline {
                        return Err(SubmitError::NotController { controller });
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// The command as it is written at the cluster's feature level. One that needs a higher level is written nowhere.
    async fn record_of(&self, command: &Command, deadline: Instant) -> Result<Bytes, SubmitError> {
        // Before anything is known of the cluster there are its first records to write.
        let level = || self.shared().image().feature_level().max(FEATURE_LEVEL_MIN);
        let mut record = record::encode(command, level());
        if matches!(record, Err(RecordError::LevelTooLow { .. })) {
            // The level may just have been raised by way of another broker.
            let left = deadline.saturating_duration_since(Instant::now());
            let caught_up = self.catch_up(left.min(REASON_SHOWN)).await;
            if let Err(error) = caught_up {
                tracing::debug!(%error, "whether the feature level was raised is not known");
            }
            record = record::encode(command, level());
        }
        record.map_err(|error| {
            SubmitError::Metadata(match error {
                RecordError::LevelTooLow { .. } => MetadataError::LevelTooLow(error.to_string()),
                other => MetadataError::Unsupported(other.to_string()),
            })
        })
    }

    /// Carries out what this broker decides as the leader: now or not at all. Another leader, or this one later, has
    /// heard other things, and decides for itself.
    pub(crate) async fn decide(
        &self,
        command: Command,
        timeout: Duration,
    ) -> Result<(), SubmitError> {
        let deadline = Instant::now() + timeout;
        let record = self.record_of(&command, deadline).await?;
        let written = timeout_at(deadline, self.write(record)).await;
        match written.map_err(|_| SubmitError::Timeout)?? {
            Tried::Applied { result, index } => {
                let shown = timeout_at(deadline, self.shared().wait_applied(index)).await;
                shown.map_err(|_| SubmitError::Timeout)?;
                result.map(drop).map_err(SubmitError::from)
            }
            Tried::NotHere(controller) => {
                // Renews a lapsed lease for the next time.
                let renewed = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
                drop(timeout_at(deadline, renewed).await);
                sleep(RETRY).await;
                Err(SubmitError::NotController { controller })
            }
        }
    }

    /// Carries out a command of another broker, if this one leads.
    pub(crate) async fn submit_here(&self, record: Bytes, patience: Duration) -> Reply {
        let written = timeout_at(Instant::now() + patience, self.write(record));
        match written.await {
            Ok(Ok(Tried::Applied { result, index })) => Reply::Submitted {
                result,
                applied: index,
            },
            Ok(Ok(Tried::NotHere(leader))) => Reply::NotController(leader),
            Ok(Err(error)) => Reply::NotNow(error.to_string()),
            // It may be applied yet: no answer says less than a wrong one.
            Err(_) => std::future::pending().await,
        }
    }

    /// Up to which entry the metadata is committed, if this broker leads.
    pub(crate) async fn read_index(&self) -> Reply {
        let read = self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
        let applied = self.shared().applied().0;
        match (read, applied) {
            (Ok(_), Some(applied)) => Reply::Applied(applied.index),
            _ => Reply::NotController(self.leader().filter(|_| !self.leads())),
        }
    }

    /// Waits until the group has a leader and this broker's image shows all that was committed before the call.
    pub(crate) async fn catch_up(&self, timeout: Duration) -> Result<(), StartError> {
        let deadline = Instant::now() + timeout;
        let expired = || StartError::ControllerTimeout(timeout.as_millis());
        loop {
            let read = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
            if matches!(timeout_at(deadline, read).await, Ok(Ok(_))) {
                return Ok(());
            }
            if let Err(fatal) = &self.raft.metrics().borrow_watched().running_state {
                let failure = self.shared().failure();
                let reason = failure.map_or_else(|| fatal.to_string(), |it| it.to_string());
                return Err(StartError::Metadata(reason));
            }
            let asked = self.ask(&Request::ReadIndex, deadline).await;
            if let Ok(Reply::Applied(index)) = asked {
                let shown = timeout_at(deadline, self.shared().wait_applied(index)).await;
                return shown.map_err(|_| expired());
            }
            if Instant::now() >= deadline {
                return Err(expired());
            }
            sleep(RETRY).await;
        }
    }

    async fn try_submit(&self, record: &Bytes, deadline: Instant) -> Result<Tried, SubmitError> {
        let leader = match self.write(record.clone()).await? {
            applied @ Tried::Applied { .. } => return Ok(applied),
            Tried::NotHere(None) => {
                // Renews a lapsed lease; the outcome shows in the next try.
                let read = self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
                if read.is_ok() {
                    return Ok(Tried::NotHere(None));
                }
                None
            }
            Tried::NotHere(leader) => leader,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let request = Request::Submit {
            record: record.clone(),
            timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        };
        match self.ask(&request, deadline).await {
            Ok(Reply::Submitted { result, applied }) => Ok(Tried::Applied {
                result,
                index: applied,
            }),
            Err(AskError::Unanswered(_)) => Err(SubmitError::Timeout),
            Ok(_) | Err(AskError::Nobody | AskError::Unknown(_)) => Ok(Tried::NotHere(leader)),
        }
    }

    async fn ask(&self, request: &Request, deadline: Instant) -> Result<Reply, AskError> {
        let leader = self.leader();
        self.control()
            .ask_controller(leader, request, deadline)
            .await
    }

    /// Writes a command to this broker's replica, which must lead.
    async fn write(&self, record: Bytes) -> Result<Tried, SubmitError> {
        let (sender, receiver) = oneshot::channel();
        let command = GroupCommand::Metadata(record);
        let responder = Some(GroupResponder::Caller(sender));
        let sent = self.raft.client_write_ff(command, responder).await;
        sent.map_err(|fatal| self.stopped(&fatal))?;
        let answer: ClientWriteResult<GroupTypes> = receiver
            .await
            .map_err(|_| self.stopped(&"the group stopped"))?;
        match answer {
            Ok(response) => Ok(Tried::Applied {
                index: response.log_id.index,
                result: match response.data {
                    GroupReply::Metadata(result) => result,
                    GroupReply::Done | GroupReply::Void => Ok(Outcome::Done),
                },
            }),
            Err(ClientWriteError::ForwardToLeader(ForwardToLeader { leader_id, .. })) => {
                Ok(Tried::NotHere(leader_id.map(|replica| replica.broker)))
            }
            Err(_) => Err(SubmitError::Timeout),
        }
    }

    fn stopped(&self, reason: &dyn fmt::Display) -> SubmitError {
        match self.shared().failure() {
            Some(failure) => SubmitError::Unavailable(failure.to_string()),
            None => {
                tracing::debug!(%reason, "controller group stopped");
                SubmitError::ShuttingDown
            }
        }
    }
}
