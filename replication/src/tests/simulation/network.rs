//! What is between the brokers: delays, losses, cuts in one direction or both.

use rand::RngExt;
use rand::rngs::StdRng;

use super::raft::Ms;

/// Brokers that there may be, ids from 1.
pub const BROKERS_MAX: usize = 8;

/// Share of the heartbeats that come much later than they were sent.
const STRAGGLERS: f64 = 0.03;

#[derive(Debug)]
pub struct Network {
    /// When a direction was cut.
    cut: [[Option<Ms>; BROKERS_MAX]; BROKERS_MAX],
    /// Longest further delay of what a broker sends or gets.
    slow: [Ms; BROKERS_MAX],
    /// Share of the messages that get lost.
    pub loss: f64,
}

impl Network {
    pub fn new() -> Network {
        Network {
            cut: [[None; BROKERS_MAX]; BROKERS_MAX],
            slow: [0; BROKERS_MAX],
            loss: 0.0,
        }
    }

    pub fn cut(&mut self, from: usize, to: usize, now: Ms) {
        self.cut[from][to].get_or_insert(now);
    }

    pub fn mend(&mut self, from: usize, to: usize) {
        self.cut[from][to] = None;
    }

    pub fn mend_all(&mut self) {
        *self = Network::new();
    }

    pub fn slow_down(&mut self, broker: usize, by: Ms) {
        self.slow[broker] = by;
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from][to].is_some()
    }

    /// Whether either direction has been cut for so long.
    pub fn is_silent(&self, one: usize, other: usize, now: Ms, silence: Ms) -> bool {
        let long = |at: Option<Ms>| at.is_some_and(|at| at + silence <= now);
        long(self.cut[one][other]) || long(self.cut[other][one])
    }

    /// How long a message takes; `None`: it does not arrive.
    pub fn delay(
        &self,
        from: usize,
        to: usize,
        may_straggle: bool,
        rng: &mut StdRng,
    ) -> Option<Ms> {
        if self.is_cut(from, to) || (self.loss > 0.0 && rng.random_bool(self.loss)) {
            return None;
        }
        let slow = self.slow[from].max(self.slow[to]);
        let mut delay = rng.random_range(1..=4);
        if slow > 0 {
            delay += rng.random_range(0..=slow);
        }
        if may_straggle && rng.random_bool(STRAGGLERS) {
            delay += rng.random_range(200..=2_500);
        }
        Some(delay)
    }
}
