//! Random changes of a compacted log, with clean stops and power losses in between and in the middle.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::compaction::{Records, compact, compacted, keyed, records};
use super::*;

/// A log as it must be: every entry that was appended, and where the rest begins.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    entries: Vec<(EntryId, i64, Records)>,
    pub(super) log_start: i64,
    purged: u64,
    epoch: i32,
    value: u32,
    sequence: i32,
}

impl Model {
    fn last(&self) -> u64 {
        self.entries.last().map_or(0, |(id, ..)| id.index.0)
    }

    fn end(&self) -> i64 {
        let last = self.entries.last();
        last.map_or(0, |(_, base, records)| base + records.len() as i64)
    }

    pub(super) fn entry(&mut self, random: &mut StdRng) -> LogEntry {
        let (index, base) = (self.last() + 1, self.end());
        if random.random_bool(0.15) {
            let id = EntryId {
                epoch: LeaderEpoch(self.epoch),
                index: EntryIndex(index),
            };
            self.entries.push((id, base, Vec::new()));
            return entry(self.epoch, index, opaque("between"));
        }
        let records: Records = (0..random.random_range(1..5))
            .map(|_| {
                self.value += 1;
                (
                    random.random_range(0..12),
                    random.random_bool(0.8).then_some(self.value),
                )
            })
            .collect();
        let batch = keyed(Some((3, self.sequence)), i64::from(self.value), &records);
        self.sequence += records.len() as i32;
        let id = EntryId {
            epoch: LeaderEpoch(self.epoch),
            index: EntryIndex(index),
        };
        self.entries.push((id, base, records));
        entry(self.epoch, index, EntryBody::Batch(batch))
    }

    fn truncate(&mut self, index: u64) {
        self.entries.retain(|(id, ..)| id.index.0 <= index);
        self.log_start = self.log_start.min(self.end());
    }

    pub(super) fn check(&mut self, log: &PartitionLog, random: &mut StdRng) {
        let bounds = log.bounds();
        assert!(bounds.purged.index.0 >= self.purged);
        self.purged = bounds.purged.index.0;
        assert_eq!(
            (bounds.last.index.0, bounds.log_end.0),
            (self.last(), self.end())
        );
        assert_eq!(bounds.log_start.0, self.log_start);
        let until = EntryIndex(self.last() + 1);
        let mut next = self.purged + 1;
        while next < until.0 {
            let some = log.entries(EntryIndex(next), until, random.random_range(1..9000));
            for held in some.expect("held") {
                let (id, base, _) = &self.entries[next as usize - 1];
                assert_eq!(held.id, *id);
                if let EntryBody::Batch(batch) = held.body {
                    assert_eq!(batch.base_offset().0, *base);
                }
                next += 1;
            }
        }
        self.check_records(log, random);
    }

    /// What is found was appended, everything that has an entry is found, and so is the newest of each key.
    fn check_records(&self, log: &PartitionLog, random: &mut StdRng) {
        let found = records(log, random.random_range(1..9000));
        let rises = found.windows(2).all(|pair| pair[0].0 < pair[1].0);
        assert!(rises, "{found:?}");
        let found: BTreeMap<i64, (u8, Option<u32>)> = found
            .into_iter()
            .map(|(offset, key, value)| (offset, (key, value)))
            .collect();
        let (mut appended, mut newest) = (BTreeMap::new(), BTreeMap::new());
        for (id, base, records) in &self.entries {
            for (at, record) in (*base..).zip(records) {
                appended.insert(at, *record);
                if at >= self.log_start {
                    newest.insert(record.0, (at, record.1));
                    let held = id.index.0 > self.purged;
                    assert!(!held || found.contains_key(&at), "{at} is missing");
                }
            }
        }
        for (offset, record) in &found {
            assert_eq!(appended.get(offset), Some(record));
        }
        for (key, (offset, value)) in newest {
            match value {
                Some(_) => assert!(found.contains_key(&offset), "newest of {key} at {offset}"),
                // A tombstone may be gone, but then with all that was before it.
                None if !found.contains_key(&offset) => {
                    let before = found.iter().find(|(_, (other, _))| *other == key);
                    assert_eq!(before, None, "{key} came back");
                }
                None => {}
            }
        }
    }
}

pub(super) async fn step(
    model: &mut Model,
    log: &PartitionLog,
    random: &mut StdRng,
) -> Result<(), LogError> {
    model.purged = log.bounds().purged.index.0;
    match random.random_range(0..100) {
        0..72 => {
            let count = random.random_range(1..10);
            let entries = (0..count).map(|_| model.entry(random)).collect();
            append(log, entries).await.map(drop)
        }
        72..78 => {
            let last = model.last();
            let index = random.random_range(last.saturating_sub(20).max(model.purged)..=last);
            model.truncate(index);
            model.epoch += 1;
            log.truncate_after(EntryIndex(index)).await
        }
        78..96 => {
            let now = i64::from(model.value) + if random.random_bool(0.3) { 5_000 } else { 0 };
            compact(log, now).await.map(drop)
        }
        96..98 => {
            // Entries may be forgotten anywhere, not only where a segment ends.
            let index = random.random_range(model.purged..=model.last());
            log.forget_to(EntryIndex(index)).await
        }
        _ => {
            let to = random.random_range(
                model.log_start..=model.log_start + (model.end() - model.log_start) / 3,
            );
            model.log_start = to;
            log.advance_log_start(Offset(to));
            log.drop_settled_below_start().await
        }
    }
}

fn random_config(random: &mut StdRng) -> LogConfig {
    LogConfig {
        segment_bytes: random.random_range(1500..12_000),
        index_interval_bytes: random.random_range(1..2000),
        ..compacted()
    }
}

pub(super) fn only_files_that_count(machine: &Machine, log: &PartitionLog) {
    // The first look at a log tidies its folder.
    log.producers().expect("is loaded");
    let folder = PathBuf::from("/data/topics/orders-0.1");
    let listed = machine.fs.list(&folder).unwrap_or_default();
    assert_eq!(log.unlisted_files(), Vec::<String>::new(), "{listed:?}");
}

/// Makes the log. Until something of it is acknowledged it may vanish, so something is.
async fn begin(manager: &LogManager, random: &mut StdRng) -> Model {
    let mut model = Model::default();
    let log = make(manager, 0, random_config(random));
    let first = append(&log, vec![model.entry(random)]).await;
    first.expect("is durable");
    model
}

pub(super) async fn run(seed: u64, left_out: Option<SyncPoint>) {
    let mut random = StdRng::seed_from_u64(seed);
    let machine = Machine::without(seed, left_out);
    let (mut manager, _) = machine.open();
    let mut model = begin(&manager, &mut random).await;
    for _ in 0..random.random_range(20..120) {
        let log = find(&manager, 0);
        step(&mut model, &log, &mut random).await.expect("is done");
        if random.random_bool(0.1) {
            model.check(&log, &mut random);
        }
        if random.random_bool(0.06) {
            drop(log);
            manager = machine.restart(manager, &mut random).await;
            let log = find(&manager, 0);
            log.advance_log_start(Offset(model.log_start));
            model.check(&log, &mut random);
            only_files_that_count(&machine, &log);
            log.set_config(random_config(&mut random));
        }
    }
    model.check(&find(&manager, 0), &mut random);
    manager.shutdown().await;
}

/// Takes over what the log made of the change that was cut.
pub(super) fn settle(model: &mut Model, before: Model, log: &PartitionLog) {
    let last = log.bounds().last.index.0;
    if last == model.last() {
        return;
    }
    if model.entries.len() > before.entries.len() && last >= before.last() {
        model.truncate(last);
    } else {
        let (epoch, value, sequence) = (model.epoch, model.value, model.sequence);
        *model = Model {
            epoch,
            value,
            sequence,
            ..before
        };
    }
}

/// The power goes in the middle of a change: nothing that was acknowledged is lost.
pub(super) async fn run_cut(seed: u64, left_out: Option<SyncPoint>) {
    let mut random = StdRng::seed_from_u64(seed);
    let machine = Machine::without(seed, left_out);
    let (mut manager, _) = machine.open();
    let mut model = begin(&manager, &mut random).await;
    for _ in 0..4 {
        let log = find(&manager, 0);
        for _ in 0..random.random_range(0..30) {
            step(&mut model, &log, &mut random).await.expect("is done");
        }
        machine.fs.cut_power_after(random.random_range(1..300));
        let mut before = model.clone();
        for _ in 0..60 {
            before = model.clone();
            if step(&mut model, &log, &mut random).await.is_err() {
                break;
            }
        }
        drop(log);
        machine.crash(manager, random.random());
        let (opened, report) = machine.open();
        manager = opened;
        assert_eq!(report.stopped, vec![]);
        let log = find(&manager, 0);
        settle(&mut model, before, &log);
        // A log start that was raised may be lost here; the layer above raises it again.
        model.log_start = model.log_start.max(log.bounds().log_start.0);
        log.advance_log_start(Offset(model.log_start));
        model.check(&log, &mut random);
        only_files_that_count(&machine, &log);
        log.set_config(random_config(&mut random));
    }
    manager.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::soak(40), max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compaction_stops_and_power_losses(seed in any::<u64>()) {
        block_on(run(seed, None));
    }

    #[test]
    fn power_loss_in_the_middle_of_compaction(seed in any::<u64>()) {
        block_on(run_cut(seed, None));
    }
}
