//! A run: connections are opened, all start at the same moment, and what they did is added up.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use tidelog_protocol::api::ApiKey;
use tidelog_protocol::types::{Offset, PartitionIndex, TopicName};

use crate::batch::PreparedBatch;
use crate::connection::Connection;
use crate::consume::{ConsumeTask, Position};
use crate::error::DriverError;
use crate::latencies::Latencies;
use crate::pace::Pace;
use crate::prepared::{FETCH_VERSIONS, FetchRequestBytes, PRODUCE_VERSIONS, ProduceRequests};
use crate::process::{ProcessSample, ProcessUse};
use crate::produce::{BURST_MAX, ProduceTask, Tally};

/// A partition and the broker that leads it.
#[derive(Clone, Debug)]
pub struct Target {
    /// host:port of the leader.
    pub address: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Where reading begins.
    pub start: Offset,
}

/// When a run ends: at whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// After so many bytes of batches.
    pub bytes: Option<u64>,
    /// After so long.
    pub time: Option<Duration>,
}

/// How a run reaches the brokers, and what is watched meanwhile.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The topic.
    pub topic: TopicName,
    /// Its partitions.
    pub targets: Vec<Target>,
    /// Connections in all; at least one for each broker is made.
    pub connections: usize,
    /// Requests without a reply, on each connection.
    pub in_flight: usize,
    /// When the run ends.
    pub extent: Extent,
    /// How long a reply may take.
    pub timeout: Duration,
    /// A process whose use is measured: the broker.
    pub pid: Option<u32>,
}

/// Which replicas have a batch before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// All that are in sync.
    All,
    /// The leader.
    One,
    /// Nobody says.
    None,
}

/// Writing.
#[derive(Clone, Debug)]
pub struct ProducePlan {
    /// Where to, and for how long.
    pub shape: Shape,
    /// What is sent.
    pub batch: PreparedBatch,
    /// When it counts.
    pub acks: Acks,
    /// Batches per second over all connections; `None` sends as fast as replies come.
    pub batches_per_s: Option<f64>,
}

/// Reading.
#[derive(Clone, Debug)]
pub struct ConsumePlan {
    /// From where, and for how long.
    pub shape: Shape,
    /// Most bytes of one reply.
    pub fetch_bytes: i32,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Version of the requests.
    pub version: i16,
    /// Connections that were made.
    pub connections: usize,
    /// Requests that were answered.
    pub requests: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of batches in them, as they travel.
    pub bytes: u64,
    /// From the first request to the last reply.
    pub elapsed: Duration,
    /// Times of the replies; none with `acks=0`.
    pub latencies: Latencies,
    /// What this process used.
    pub driver: ProcessUse,
    /// What the watched process used.
    pub broker: Option<ProcessUse>,
}

/// How long a broker may wait for records to come.
const FETCH_WAIT_MS: i32 = 500;

/// Writes.
pub fn produce(plan: &ProducePlan) -> Result<Outcome, DriverError> {
    let batch_bytes = plan.batch.wire_bytes() as u64;
    let acks = match plan.acks {
        Acks::All => -1,
        Acks::One => 1,
        Acks::None => 0,
    };
    let lanes = plan.shape.lanes()?;
    let count = lanes.len();
    let total = plan.shape.extent.bytes.map(|b| b.div_ceil(batch_bytes));
    let mut version = 0;
    let mut tasks = Vec::with_capacity(count);
    for (number, mut lane) in lanes.into_iter().enumerate() {
        let mut connection = Connection::open(&lane.address, plan.shape.timeout)?;
        version = connection.version(ApiKey::Produce, PRODUCE_VERSIONS)?;
        let topic = &plan.shape.topic;
        // Connections to one broker begin at different partitions.
        let turn = lane.number % lane.partitions.len();
        lane.partitions.rotate_left(turn);
        tasks.push(ProduceTask {
            connection,
            requests: ProduceRequests::new(topic, version, acks, &plan.batch.bytes, BURST_MAX)?,
            version,
            has_replies: plan.acks != Acks::None,
            partitions: lane.partitions.iter().map(|(index, _)| index.0).collect(),
            in_flight: plan.shape.in_flight,
            share: total.map_or(u64::MAX, |total| share(total, number, count)),
        });
    }
    let mut outcome = plan.shape.run(tasks, |number, task, start, deadline| {
        let pace = plan
            .batches_per_s
            .map_or(Pace::Closed, |rate| Pace::open(start, rate, number, count));
        task.run(pace, deadline)
    })?;
    outcome.version = version;
    outcome.records = outcome.requests * u64::from(plan.batch.records);
    outcome.bytes = outcome.requests * batch_bytes;
    Ok(outcome)
}

/// Reads.
pub fn consume(plan: &ConsumePlan) -> Result<Outcome, DriverError> {
    let lanes = plan.shape.lanes()?;
    let count = lanes.len();
    let mut version = 0;
    let mut tasks = Vec::with_capacity(count);
    for (number, lane) in lanes.into_iter().enumerate() {
        let mut connection = Connection::open(&lane.address, plan.shape.timeout)?;
        version = connection.version(ApiKey::Fetch, FETCH_VERSIONS)?;
        let topic = &plan.shape.topic;
        tasks.push(ConsumeTask {
            connection,
            request: FetchRequestBytes::new(topic, version, plan.fetch_bytes, FETCH_WAIT_MS)?,
            version,
            positions: lane.own_positions(),
            in_flight: plan.shape.in_flight,
            share: plan.shape.extent.bytes.map(|b| share(b, number, count)),
        });
    }
    let mut outcome = plan
        .shape
        .run(tasks, |_, task, _, deadline| task.run(deadline))?;
    outcome.version = version;
    Ok(outcome)
}

/// One connection's part of a whole.
fn share(total: u64, number: usize, of: usize) -> u64 {
    let (number, of) = (number as u64, of as u64);
    total / of + u64::from(number < total % of)
}

/// One connection: its broker and that broker's partitions.
struct Lane {
    address: String,
    partitions: Vec<(PartitionIndex, Offset)>,
    /// Place among the connections to this broker.
    number: usize,
    of: usize,
}

impl Lane {
    /// The partitions are dealt out; with more connections than partitions several read the same one.
    fn own_positions(&self) -> Vec<Position> {
        let own = |at: usize| {
            if self.of <= self.partitions.len() {
                at % self.of == self.number
            } else {
                at == self.number % self.partitions.len()
            }
        };
        self.partitions
            .iter()
            .enumerate()
            .filter(|(at, _)| own(*at))
            .map(|(_, (partition, start))| Position {
                partition: partition.0,
                start: start.0,
                next: start.0,
            })
            .collect()
    }
}

impl Shape {
    /// Connections, dealt out to the brokers in turn.
    fn lanes(&self) -> Result<Vec<Lane>, DriverError> {
        if self.extent.bytes.is_none() && self.extent.time.is_none() {
            return Err(DriverError::Plan("the run has no end".to_owned()));
        }
        if self.in_flight == 0 {
            return Err(DriverError::Plan("nothing may be in flight".to_owned()));
        }
        let mut brokers: BTreeMap<&str, Vec<(PartitionIndex, Offset)>> = BTreeMap::new();
        for target in &self.targets {
            let partitions = brokers.entry(&target.address).or_default();
            partitions.push((target.partition, target.start));
        }
        if brokers.is_empty() {
            return Err(DriverError::Plan("the topic has no partition".to_owned()));
        }
        let count = self.connections.max(brokers.len());
        let lanes = brokers
            .iter()
            .enumerate()
            .flat_map(|(at, (address, partitions))| {
                let of = count / brokers.len() + usize::from(at < count % brokers.len());
                (0..of).map(move |number| Lane {
                    address: (*address).to_owned(),
                    partitions: partitions.clone(),
                    number,
                    of,
                })
            });
        Ok(lanes.collect())
    }

    fn run<T: Send>(
        &self,
        tasks: Vec<T>,
        work: impl Fn(usize, T, Instant, Option<Instant>) -> Result<Tally, DriverError> + Sync,
    ) -> Result<Outcome, DriverError> {
        let connections = tasks.len();
        let ready = Barrier::new(connections);
        let sample_broker = || self.pid.map(ProcessSample::of).transpose();
        let before = (ProcessSample::own()?, sample_broker()?);
        let begun = Instant::now();
        let results: Vec<_> = thread::scope(|scope| {
            let (work, ready) = (&work, &ready);
            let threads: Vec<_> = tasks
                .into_iter()
                .enumerate()
                .map(|(number, task)| {
                    scope.spawn(move || {
                        ready.wait();
                        let start = Instant::now();
                        let deadline = self.extent.time.map(|time| start + time);
                        work(number, task, start, deadline)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        let elapsed = begun.elapsed();
        let after = (ProcessSample::own()?, sample_broker()?);
        let mut total = Tally::default();
        for result in results {
            let tally = result
                .map_err(|_| DriverError::Plan("a connection's thread died".to_owned()))??;
            total.requests += tally.requests;
            total.records += tally.records;
            total.bytes += tally.bytes;
            total.latencies.merge(&tally.latencies);
        }
        Ok(Outcome {
            version: 0,
            connections,
            requests: total.requests,
            records: total.records,
            bytes: total.bytes,
            elapsed,
            latencies: total.latencies,
            driver: ProcessUse {
                before: before.0,
                after: after.0,
            },
            broker: before
                .1
                .zip(after.1)
                .map(|(before, after)| ProcessUse { before, after }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(addresses: &[&str], connections: usize) -> Shape {
        let targets = (0..).zip(addresses).map(|(index, address)| Target {
            address: (*address).to_owned(),
            partition: PartitionIndex(index),
            start: Offset(0),
        });
        Shape {
            topic: TopicName::from("t"),
            targets: targets.collect(),
            connections,
            in_flight: 1,
            extent: Extent {
                bytes: Some(1),
                time: None,
            },
            timeout: Duration::from_secs(1),
            pid: None,
        }
    }

    #[test]
    fn every_broker_has_a_connection_and_every_partition_a_reader() {
        for connections in 1..10 {
            let lanes = shape(&["a:1", "b:1", "a:1", "a:1"], connections)
                .lanes()
                .unwrap();
            assert_eq!(lanes.len(), connections.max(2));
            let mut read: Vec<_> = lanes
                .iter()
                .flat_map(|lane| lane.own_positions())
                .map(|position| position.partition)
                .collect();
            read.sort_unstable();
            read.dedup();
            assert_eq!(read, [0, 1, 2, 3], "{connections}");
            assert!(lanes.iter().all(|lane| !lane.own_positions().is_empty()));
        }
    }

    #[test]
    fn shares_add_up() {
        for total in [0, 1, 7, 100] {
            assert_eq!((0..7).map(|n| share(total, n, 7)).sum::<u64>(), total);
        }
    }
}
