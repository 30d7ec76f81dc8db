//! Requests to append and the tickets that they turn into.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::types::{LeaderEpoch, Offset};
use tokio::sync::oneshot;

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
    },
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
    ) -> Self {
        AppendTicket(Ticket::Waiting { answer, partition })
    }
}

impl Future for AppendTicket {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ticket::Answered(result) => {
                Poll::Ready(result.take().unwrap_or(Err(AppendError::Unknown)))
            }
            Ticket::Waiting { answer, partition } => {
                let answer = ready!(Pin::new(answer).poll(context));
                // Nobody answers any more: the group stopped with the entry in it.
                Poll::Ready(answer.unwrap_or_else(|_| match partition.offline() {
                    Some(reason) => Err(AppendError::Storage(reason.to_string())),
                    None => Err(AppendError::Unknown),
                }))
            }
        }
    }
}
