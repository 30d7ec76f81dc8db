//! One connection that sends the prepared batch until its part is done.

use std::collections::VecDeque;
use std::time::Instant;

use crate::connection::Connection;
use crate::error::DriverError;
use crate::latencies::Latencies;
use crate::pace::Pace;
use crate::prepared::ProduceRequests;
use crate::reply;

/// Requests of one vectored write, in number and in bytes: the first keeps the list short, the second lets replies
/// be read between large requests.
pub(crate) const BURST_MAX: usize = 64;
const BURST_BYTES: usize = 512 * 1024;

/// What one connection does.
pub(crate) struct ProduceTask {
    pub(crate) connection: Connection,
    pub(crate) requests: ProduceRequests,
    pub(crate) version: i16,
    pub(crate) has_replies: bool,
    /// Taken in turn.
    pub(crate) partitions: Vec<i32>,
    pub(crate) in_flight: usize,
    /// Requests to send at most.
    pub(crate) share: u64,
}

/// What one connection did.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) latencies: Latencies,
}

impl ProduceTask {
    /// Sends until the share or the time is used up, and until everything is answered.
    pub(crate) fn run(
        mut self,
        pace: Pace,
        deadline: Option<Instant>,
    ) -> Result<Tally, DriverError> {
        let burst = (BURST_BYTES / self.requests.size_bytes().max(1)).clamp(1, BURST_MAX);
        // Filling the window in steps costs one write for several requests.
        let step = (self.in_flight / 4).clamp(1, burst);
        let mut tally = Tally::default();
        let mut waiting: VecDeque<Instant> = VecDeque::with_capacity(self.in_flight);
        let mut sent = 0u64;
        let mut reply_bytes = 0;
        self.connection.restart_numbering();
        loop {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                self.share = sent;
            }
            let left = usize::try_from(self.share - sent).unwrap_or(usize::MAX);
            let room = (self.in_flight - waiting.len()).min(left).min(burst);
            let count = pace.due(now, sent, room);
            let is_worth_it = count >= step || count == left || matches!(pace, Pace::Open { .. });
            if count > 0 && (is_worth_it || waiting.is_empty()) {
                self.send(sent, count)?;
                if self.has_replies {
                    let numbers = sent..sent + count as u64;
                    waiting.extend(numbers.map(|number| pace.moment(number).unwrap_or(now)));
                } else {
                    tally.requests += count as u64;
                }
                sent += count as u64;
                continue;
            }
            if waiting.is_empty() && left == 0 {
                break;
            }
            let next = pace.moment(sent).filter(|_| room > 0);
            if let Some(next) = next
                && !self.connection.readable_before(next)?
            {
                continue;
            }
            // More than three steps are in flight when the window has no room for one, so a step's replies will come;
            // being woken for each of them is what costs most. At a rate and at the end each counts at once.
            let is_paced = matches!(pace, Pace::Open { .. });
            let awaited = if left == 0 || is_paced { 1 } else { step };
            self.connection.wake_at(awaited * reply_bytes)?;
            self.connection.receive()?;
            self.take_replies(&mut waiting, &mut tally, &mut reply_bytes)?;
        }
        if !self.has_replies {
            self.connection.settle()?;
        }
        Ok(tally)
    }

    fn send(&mut self, first: u64, count: usize) -> Result<(), DriverError> {
        for place in 0..count {
            let number = first + place as u64;
            let turn = number as usize % self.partitions.len();
            let partition = self.partitions.get(turn).copied().unwrap_or_default();
            // Numbers of requests wrap as those of replies do.
            self.requests.patch(place, number as i32, partition);
        }
        self.connection.write(&mut self.requests.slices(count))
    }

    fn take_replies(
        &mut self,
        waiting: &mut VecDeque<Instant>,
        tally: &mut Tally,
        reply_bytes: &mut usize,
    ) -> Result<(), DriverError> {
        let now = Instant::now();
        while let Some(reply) = self.connection.take_reply()? {
            *reply_bytes = reply.len();
            let produced = reply::produced(reply, self.version);
            match produced {
                Ok(0) => {}
                Ok(code) => return Err(self.connection.refused(code)),
                Err(reason) => return Err(self.connection.malformed(reason)),
            }
            let Some(asked) = waiting.pop_front() else {
                return Err(self.connection.malformed("a reply that nobody asked for"));
            };
            tally.latencies.record(now.saturating_duration_since(asked));
            tally.requests += 1;
        }
        Ok(())
    }
}
