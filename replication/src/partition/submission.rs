//! One submitted batch, from its place in the order to its answer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use tidelog_protocol::types::Offset;
use tokio::sync::oneshot;

use super::append::{Acks, Appended};
use super::order::SubmissionNumber;
use super::shared::PartitionShared;
use crate::errors::AppendError;
use crate::raft::types::{GroupReply, GroupTypes};

/// Answer of a submission.
pub type AppendResult = Result<Appended, AppendError>;

/// See the module. Its share of the byte budgets goes back when the last reference is dropped, at the commit.
pub struct Submission {
    partition: Arc<PartitionShared>,
    number: SubmissionNumber,
    base_offset: Offset,
    next_offset: Offset,
    acks: Acks,
    permits: InFlight,
    void: AtomicBool,
    waiting: Mutex<Option<oneshot::Sender<AppendResult>>>,
}

/// Bytes taken from the budgets of the partition and of the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// From the partition's.
    pub partition: u32,
    /// From the broker's.
    pub broker: u32,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("number", &self.number)
            .field("base_offset", &self.base_offset)
            .field("acks", &self.acks)
            .finish_non_exhaustive()
    }
}

impl Submission {
    /// A batch that was given its place. The receiver gets the answer; with acks=0 nobody waits.
    pub fn new(
        partition: Arc<PartitionShared>,
        number: SubmissionNumber,
        offsets: std::ops::Range<Offset>,
        acks: Acks,
        permits: InFlight,
    ) -> (Arc<Submission>, oneshot::Receiver<AppendResult>) {
        let (sender, receiver) = oneshot::channel();
        let waiting = Mutex::new((acks != Acks::None).then_some(sender));
        let submission = Submission {
            partition,
            number,
            base_offset: offsets.start,
            next_offset: offsets.end,
            acks,
            permits,
            void: AtomicBool::new(false),
            waiting,
        };
        (Arc::new(submission), receiver)
    }

    /// When it is answered.
    pub fn acks(&self) -> Acks {
        self.acks
    }

    /// Offset of its first record.
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// Whether it may be appended. Asked once, right before the append; if not, an empty entry takes its place.
    pub fn admit(&self) -> bool {
        let admitted = self.partition.admits(self.number);
        self.void.store(!admitted, Ordering::Release);
        admitted
    }

    /// It is in the log, and all before it.
    pub fn appended(&self) {
        self.partition.appended(self.number);
    }

    /// It is on stable storage here, as the topic's durability asks. A lone replica answers at the commit, which
    /// follows at once: whoever hears of the record can read it.
    pub fn durable(&self) {
        if self.acks == Acks::Leader && self.partition.voter_count() > 1 {
            self.answer(Ok(self.position()));
        }
    }

    /// It is committed.
    pub fn committed(&self) {
        if !self.void.load(Ordering::Acquire) {
            self.partition.advance_high_watermark(self.next_offset);
            self.answer(Ok(self.position()));
        }
    }

    /// The group is done with it.
    pub fn finished(&self, result: ClientWriteResult<GroupTypes>) {
        match result {
            Ok(response) => match response.data {
                GroupReply::Void => self.answer(Err(self.partition.not_leader().into())),
                GroupReply::Done | GroupReply::Metadata(_) => self.committed(),
            },
            Err(ClientWriteError::ForwardToLeader(_)) => {
                self.refuse();
                self.answer(Err(self.partition.not_leader().into()));
            }
            Err(_) => self.answer(Err(AppendError::Unknown)),
        }
    }

    /// Gives its place back: it was not accepted.
    pub fn refuse(&self) {
        self.partition.refused(self.number);
    }

    fn position(&self) -> Appended {
        Appended {
            base_offset: self.base_offset,
            log_start: self.partition.log_start(),
        }
    }

    fn answer(&self, result: AppendResult) {
        if let Some(sender) = self.waiting.lock().take() {
            // The requester may have gone; the append stands all the same.
            drop(sender.send(result));
        }
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        self.partition.release(self.permits);
    }
}
