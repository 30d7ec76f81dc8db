//! Requests to append and the tickets that they turn into.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::types::{LeaderEpoch, Offset};
use tokio::sync::oneshot;

use super::group::PartitionGroup;
use super::shared::PartitionShared;
use super::submission::AppendResult;
use crate::errors::AppendError;

/// When a produce request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// At once (acks=0).
    None,
    /// After the leader's own durable append (acks=1).
    Leader,
    /// After the commit (acks=all).
    All,
}

/// A validated batch to append.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    /// The batch; base offset and epoch are stamped here, nothing else is changed.
    pub batch: RecordBatch,
    /// When to answer.
    pub acks: Acks,
    /// Epoch that the caller believes current; `None` = no check.
    pub epoch: Option<LeaderEpoch>,
}

/// Where the records went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// First offset that the log keeps.
    pub log_start: Offset,
}

/// Resolves when the request is answered. Dropping it does not undo the append.
#[derive(Debug)]
pub struct AppendTicket(Ticket);

#[derive(Debug)]
enum Ticket {
    Answered(Option<AppendResult>),
    Waiting {
        answer: oneshot::Receiver<AppendResult>,
        partition: Arc<PartitionShared>,
        more: Option<MoreReplicas>,
    },
    /// Committed, and on its way to more replicas than a majority.
    Replicating(Replicating),
}

/// Replicas beyond a majority that are to have a batch before it is acknowledged (`min.insync.replicas`).
#[derive(Debug)]
pub(crate) struct MoreReplicas {
    /// The group.
    pub group: Arc<PartitionGroup>,
    /// How many replicas, all in all.
    pub required: usize,
    /// Longest wait: by then they are not in sync any more.
    pub patience: Duration,
}

/// A wait for them.
struct Replicating(Pin<Box<dyn Future<Output = AppendResult> + Send>>);

impl fmt::Debug for Replicating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replicating")
    }
}

impl MoreReplicas {
    fn wait(self, appended: Appended, partition: &PartitionShared) -> Replicating {
        // What is committed is in the log, and so not behind its end.
        let last = partition.log().bounds().last.index;
        Replicating(Box::pin(async move {
            let held = self.group.wait_held(last, self.required, self.patience);
            match held.await {
                true => Ok(appended),
                // It is committed, and stays.
                false => Err(AppendError::Unknown),
            }
        }))
    }
}

impl AppendTicket {
    /// A ticket that is answered at once.
    pub(crate) fn answered(result: AppendResult) -> Self {
        AppendTicket(Ticket::Answered(Some(result)))
    }

    /// A ticket that waits.
    pub(crate) fn waiting(
        answer: oneshot::Receiver<AppendResult>,
        partition: Arc<PartitionShared>,
        more: Option<MoreReplicas>,
    ) -> Self {
        AppendTicket(Ticket::Waiting {
            answer,
            partition,
            more,
        })
    }

    /// Whether the records are known to be committed, though fewer replicas have them than `min.insync.replicas` asks
    /// for.
    pub fn is_committed(&self) -> bool {
        matches!(self.0, Ticket::Replicating(_))
    }
}

impl Future for AppendTicket {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ticket::Answered(result) => {
                Poll::Ready(result.take().unwrap_or(Err(AppendError::Unknown)))
            }
            Ticket::Waiting {
                answer,
                partition,
                more,
            } => {
                let answer = ready!(Pin::new(answer).poll(context));
                // Nobody answers any more: the group stopped with the entry in it.
                let answer = answer.unwrap_or_else(|_| match partition.offline() {
                    Some(reason) => Err(AppendError::Storage(reason.to_string())),
                    None => Err(AppendError::Unknown),
                });
                let (Ok(appended), Some(more)) = (&answer, more.take()) else {
                    return Poll::Ready(answer);
                };
                self.0 = Ticket::Replicating(more.wait(*appended, partition));
                self.poll(context)
            }
            Ticket::Replicating(replicating) => replicating.0.as_mut().poll(context),
        }
    }
}
