//! The power goes at every single write of one sequence that has all kinds of frames.
//!
//! Four logs of one directory take turns: one under `sync`, one under `os`, one that is compacted and one that is removed
//! and made again. Whatever the moment, each is afterwards what it was before or after the change that was cut.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::model::{self, Model};
use super::{compaction, compaction_model, *};
use crate::journal::Durability;

const STEPS: usize = 48;

const PLAIN: i32 = 0;
const OS: i32 = 1;
const COMPACTED: i32 = 2;
const SHORT: i32 = 3;

/// The logs as they must be.
#[derive(Clone, Debug, Default)]
struct Expected {
    plain: Model,
    /// What the log under `os` was since it was last on stable storage, oldest first.
    os: Vec<Model>,
    compacted: compaction_model::Model,
    /// `None` while it is removed.
    short: Option<Model>,
}

fn config(partition: i32) -> LogConfig {
    match partition {
        COMPACTED => LogConfig {
            segment_bytes: 2000,
            ..compaction::compacted()
        },
        OS => LogConfig {
            durability: Durability::Os,
            ..small_segments()
        },
        _ => small_segments(),
    }
}

impl Expected {
    async fn begin(manager: &LogManager, random: &mut StdRng) -> Expected {
        let mut expected = Expected::default();
        let mut os = Model::default();
        let log = |partition| make(manager, partition, config(partition));
        os.append(&log(OS), random).await.expect("is written");
        expected.os.push(os);
        let first = vec![expected.compacted.entry(random)];
        append(&log(COMPACTED), first).await.expect("is durable");
        let plain = &mut expected.plain;
        plain.append(&log(PLAIN), random).await.expect("is durable");
        expected
    }

    /// Changes one log.
    async fn step(
        &mut self,
        manager: &LogManager,
        number: usize,
        random: &mut StdRng,
    ) -> Result<(), LogError> {
        match number % 8 {
            0 => {
                let log = find(manager, PLAIN);
                self.plain.append(&log, random).await?;
                // What was written before something that was synced is synced.
                self.os.drain(..self.os.len() - 1);
            }
            2 | 5 => {
                let log = find(manager, PLAIN);
                model::step(&mut self.plain, &log, random).await?;
            }
            1 | 4 => return self.step_os(manager, random).await,
            3 | 6 => {
                let log = find(manager, COMPACTED);
                compaction_model::step(&mut self.compacted, &log, random).await?;
            }
            _ => self.step_short(manager, random).await?,
        }
        Ok(())
    }

    async fn step_os(&mut self, manager: &LogManager, random: &mut StdRng) -> Result<(), LogError> {
        let mut after = self.os.last().expect("has one").clone();
        let log = find(manager, OS);
        if random.random_bool(0.8) {
            let result = after.append(&log, random).await;
            self.os.push(after);
            return result;
        }
        let result = model::step(&mut after, &log, random).await;
        self.os.push(after);
        result
    }

    async fn step_short(
        &mut self,
        manager: &LogManager,
        random: &mut StdRng,
    ) -> Result<(), LogError> {
        if self.short.is_some() && random.random_bool(0.6) {
            self.short = None;
            return manager.remove_log(find(manager, SHORT).id()).await;
        }
        let log = make(manager, SHORT, config(SHORT));
        let model = self.short.get_or_insert_default();
        model.append(&log, random).await
    }

    fn check(mut self, before: Expected, manager: &LogManager, random: &mut StdRng) {
        let log = find(manager, PLAIN);
        model::settle(&mut self.plain, before.plain, &log);
        check(&mut self.plain, &log, random);
        self.check_os(&find(manager, OS), random);
        let log = find(manager, COMPACTED);
        compaction_model::settle(&mut self.compacted, before.compacted, &log);
        let compacted = &mut self.compacted;
        compacted.log_start = compacted.log_start.max(log.bounds().log_start.0);
        log.advance_log_start(Offset(compacted.log_start));
        compacted.check(&log, random);
        let partition = PartitionIndex(SHORT);
        match (manager.log(topic_id(), partition), before.short, self.short) {
            (None, None, _) | (None, _, None) => {}
            (None, Some(_), Some(_)) => panic!("a log is gone that nobody removed"),
            (Some(log), before, after) => {
                let was_there = before.is_some();
                let mut model = (after.or_else(|| before.clone())).expect("a removed log is back");
                let cut = was_there || log.bounds().last.index.0 > 0;
                if cut {
                    model::settle(&mut model, before.unwrap_or_default(), &log);
                    check(&mut model, &log, random);
                }
            }
        }
    }

    /// The log under `os` has lost no more than what was written since the last sync, from its end.
    fn check_os(&self, log: &PartitionLog, random: &mut StdRng) {
        let bounds = log.bounds();
        let fits = |model: &Model| (bounds.purged, bounds.last) == (model.purged, model.last());
        let mut found = self.os.iter().rfind(|model| fits(model)).cloned();
        if found.is_none() {
            // Some of the frames of an append.
            let mut cut = self.os.windows(2).filter_map(|pair| {
                let mut model = pair[1].clone();
                if pair[0].last().index < bounds.last.index {
                    model.truncate(bounds.last.index.0);
                }
                fits(&model).then_some(model)
            });
            found = cut.next();
        }
        let known: Vec<_> = self.os.iter().map(Model::last).collect();
        let mut model = found.unwrap_or_else(|| panic!("{bounds:?} is none of {known:?}"));
        check(&mut model, log, random);
    }
}

fn check(model: &mut Model, log: &PartitionLog, random: &mut StdRng) {
    // A log start that was raised may be lost here; the layer above raises it again.
    model.log_start = log.bounds().log_start;
    model.check(log, random);
}

/// Runs the sequence of a seed until the power goes during operation `cut`, and returns how many there were.
async fn run_to(seed: u64, cut: u64, torn: bool, left_out: Option<SyncPoint>) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let machine = Machine::without(seed, left_out);
    machine.fs.set_sectors_torn(torn);
    let (manager, _) = machine.open();
    let mut expected = Expected::begin(&manager, &mut random).await;
    let began = machine.fs.operations();
    machine.fs.cut_power_after(cut);
    let mut before = expected.clone();
    for number in 0..STEPS {
        before = expected.clone();
        if expected.step(&manager, number, &mut random).await.is_err() {
            break;
        }
        if number + 1 == STEPS {
            before = expected.clone();
        }
    }
    let operations = machine.fs.operations() - began;
    machine.crash(manager, seed ^ cut << 20);
    let (manager, report) = machine.open();
    assert_eq!(
        report.stopped,
        vec![],
        "seed {seed}, cut {cut}, torn {torn}"
    );
    expected.check(before, &manager, &mut random);
    operations
}

/// A sequence with a power loss at random operations, as many as `count`.
pub(super) fn at_some_writes(seed: u64, left_out: Option<SyncPoint>) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..8 {
        let (cut, torn) = (random.random_range(0..400), random.random_bool(0.3));
        block_on(async move {
            run_to(seed, cut, torn, left_out).await;
        });
    }
}

#[test]
fn power_loss_at_every_write() {
    for seed in 0..u64::from(crate::soak(1)) {
        for torn in [false, true] {
            block_on(async move {
                let mut cut = 0;
                // Threads take their time, so that there are more operations now and fewer then.
                while cut < run_to(seed, cut, torn, None).await + 5 {
                    cut += 1;
                }
                assert!(cut > 150, "only {cut} writes");
            });
        }
    }
}
