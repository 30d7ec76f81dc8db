//! One connection that fetches its partitions, each from its first offset to its end, and again from the start.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use crate::connection::Connection;
use crate::error::DriverError;
use crate::prepared::FetchRequestBytes;
use crate::produce::Tally;
use crate::reply;

/// A partition and where it is being read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) partition: i32,
    pub(crate) start: i64,
    pub(crate) next: i64,
}

/// What one connection does.
pub(crate) struct ConsumeTask {
    pub(crate) connection: Connection,
    pub(crate) request: FetchRequestBytes,
    pub(crate) version: i16,
    /// Each has one request in flight at most: the next one's offset is in the reply.
    pub(crate) positions: Vec<Position>,
    pub(crate) in_flight: usize,
    /// Bytes of records to read; `None` reads until the deadline.
    pub(crate) share: Option<u64>,
}

impl ConsumeTask {
    /// Reads until the share or the time is used up.
    pub(crate) fn run(mut self, deadline: Option<Instant>) -> Result<Tally, DriverError> {
        let mut tally = Tally::default();
        let mut waiting: VecDeque<(usize, Instant)> = VecDeque::with_capacity(self.in_flight);
        let mut idle: VecDeque<usize> = (0..self.positions.len()).collect();
        let mut sent = 0i32;
        self.connection.restart_numbering();
        loop {
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline)
                || self.share.is_some_and(|share| tally.bytes >= share);
            while !is_over && waiting.len() < self.in_flight {
                let Some(at) = idle.pop_front() else { break };
                self.ask(sent, at)?;
                sent = sent.wrapping_add(1);
                waiting.push_back((at, Instant::now()));
            }
            if waiting.is_empty() {
                return Ok(tally);
            }
            self.connection.receive()?;
            while let Some(reply) = self.connection.take_reply()? {
                let fetched = reply::fetched(reply, self.version);
                let Some((at, asked)) = waiting.pop_front() else {
                    return Err(self.connection.malformed("a reply that nobody asked for"));
                };
                tally.latencies.record(asked.elapsed());
                self.account(at, fetched, &mut tally)?;
                idle.push_back(at);
            }
        }
    }

    fn ask(&mut self, number: i32, at: usize) -> Result<(), DriverError> {
        let Some(position) = self.positions.get(at) else {
            return Ok(());
        };
        let request = self
            .request
            .patched(number, position.partition, position.next);
        self.connection.write(&mut [IoSlice::new(request)])
    }

    fn account(
        &mut self,
        at: usize,
        fetched: Result<reply::Fetched, reply::Malformed>,
        tally: &mut Tally,
    ) -> Result<(), DriverError> {
        let fetched = fetched.map_err(|reason| self.connection.malformed(reason))?;
        if fetched.error != 0 {
            return Err(self.connection.refused(fetched.error));
        }
        let Some(position) = self.positions.get_mut(at) else {
            return Ok(());
        };
        if fetched.partition != position.partition {
            return Err(self.connection.malformed("a reply about another partition"));
        }
        tally.requests += 1;
        tally.records += fetched.records;
        tally.bytes += fetched.record_bytes as u64;
        match fetched.next_offset {
            Some(next) => position.next = next,
            None if position.next == position.start => {
                return Err(DriverError::Plan(format!(
                    "partition {} has nothing to read",
                    position.partition
                )));
            }
            None => position.next = position.start,
        }
        if position.next >= fetched.high_watermark {
            position.next = position.start;
        }
        Ok(())
    }
}
