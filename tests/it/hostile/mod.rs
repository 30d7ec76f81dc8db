//! Hostile clients against a real broker process: what they do hurts nobody but themselves.
//!
//! Each test starts a broker of its own, keeps a [`Bystander`] at work beside the attack, and then asks of the broker:
//! same process, ready, within its memory, no request memory and no connection left behind, no panic and no error in
//! its log. `TIDELOG_TEST_SEED` and `TIDELOG_TEST_CASE` tell a case again, `TIDELOG_SOAK` multiplies the cases.

mod bystander;
mod connections;
mod frames;
mod http;
mod produce;
mod replies;
mod slow;
mod wire;

use std::thread;
use std::time::{Duration, Instant};

use bystander::Bystander;

use crate::running_broker::{Memory, RunningBroker};

const MIB: u64 = 1024 * 1024;

/// Memory of requests of a broker under attack.
const BUDGET: u64 = 64 * MIB;

/// The largest request that it takes.
const REQUEST_BYTES_MAX: u64 = 32 * MIB;

/// Recent batches that it keeps.
const CACHE: u64 = 16 * MIB;

/// What a broker may take beside its budget and its cache: connections, topics and groups that the hostile requests
/// bring about, and memory that the allocator has not given back yet.
const ALLOWANCE: u64 = 128 * MIB;

/// Within this time a hostile connection is answered or closed, and a bystander served, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker under attack.
struct Target {
    broker: RunningBroker,
    before: Memory,
    bystander: Option<Bystander>,
}

impl Target {
    /// Starts a broker with these properties beside those that bound its memory, and a bystander.
    fn start(sets: &[&str]) -> Target {
        let budget = format!("queued.max.request.bytes={BUDGET}");
        let cache = format!("log.cache.bytes={CACHE}");
        let request = format!("socket.request.max.bytes={REQUEST_BYTES_MAX}");
        let mut all = vec![&*budget, &*cache, &*request];
        all.extend(sets);
        let broker = RunningBroker::start_own(&all);
        let bystander = Bystander::start(broker.address());
        let before = broker.memory();
        Target {
            broker,
            before,
            bystander: Some(bystander),
        }
    }

    /// Ends the attack: checks the bystander and what the module says of the broker. `extra` is memory that this attack
    /// may take beside what every attack may.
    fn finish(mut self, extra: u64) -> Figures {
        let bystander = self.bystander.take().expect("it runs until the end");
        let slowest = bystander.finish();
        self.broker.assert_ready();
        self.await_zero("tidelog_kafka_connections");
        self.await_zero("tidelog_request_memory_used_bytes");
        let memory = self.broker.memory();
        let grown = memory.peak.saturating_sub(self.before.resident);
        let most = BUDGET + CACHE + ALLOWANCE + extra;
        assert!(
            grown <= most,
            "grown by {} MiB, {} are allowed",
            grown / MIB,
            most / MIB
        );
        let log = self.broker.log();
        let bad = log.lines().find(|line| {
            line.contains("ERROR") || line.contains("panicked") || line.contains("handler failed")
        });
        assert_eq!(bad, None);
        Figures { grown, slowest }
    }

    fn await_zero(&self, gauge: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.broker.metric(gauge);
            if value == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{gauge} stays at {value}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What an attack did.
struct Figures {
    /// Growth of the broker's memory at its peak, in bytes.
    grown: u64,
    /// The slowest round of the bystander.
    slowest: Duration,
}

impl Figures {
    fn print(&self, what: &str) {
        let Figures { grown, slowest } = self;
        eprintln!(
            "{what}: memory grew by {} MiB at its peak, the bystander's slowest round took {slowest:?}",
            grown / MIB
        );
    }
}
