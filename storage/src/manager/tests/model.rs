//! Random changes against a plain vector, with clean stops and power losses in between.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::log::{LogPosition, ProducerStateTable};

/// What an entry must be.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) id: EntryId,
    base_offset: Offset,
    records: u32,
    digest: u32,
}

/// A log as it must be.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) purged: EntryId,
    pub(super) log_start: Offset,
    start: Offset,
    pub(super) entries: Vec<Expected>,
    pub(super) epoch: i32,
    sequence: i32,
}

impl Model {
    pub(super) fn last(&self) -> EntryId {
        self.entries.last().map_or(self.purged, |last| last.id)
    }

    pub(super) fn end(&self) -> Offset {
        self.entries.last().map_or(self.start, |last| {
            Offset(last.base_offset.0 + i64::from(last.records))
        })
    }

    fn random_entry(&mut self, random: &mut StdRng, index: u64, next: &mut Offset) -> LogEntry {
        if random.random_bool(0.03) {
            self.epoch += 1;
        }
        let id = EntryId {
            epoch: LeaderEpoch(self.epoch),
            index: EntryIndex(index),
        };
        let aux = if random.random_bool(0.1) {
            Bytes::from_static(b"aux")
        } else {
            Bytes::new()
        };
        let size_max = if random.random_bool(0.1) { 3000 } else { 200 };
        let size = random.random_range(0..size_max);
        let mut value = vec![0; size];
        random.fill(&mut value[..]);
        let (body, records, bytes) = if random.random_bool(0.2) {
            (
                EntryBody::Opaque {
                    tag: 1,
                    bytes: value.clone().into(),
                },
                0,
                value.into(),
            )
        } else {
            let records = random.random_range(1..5);
            let mut batch = batch_of(3, self.sequence, records, &value);
            self.sequence += records;
            let body = EntryBody::Batch(batch.clone());
            batch.stamp(*next, id.epoch);
            (body, records.cast_unsigned(), batch.to_bytes())
        };
        self.entries.push(Expected {
            id,
            base_offset: *next,
            records,
            digest: crc32c::crc32c(&bytes),
        });
        *next = Offset(next.0 + i64::from(records));
        LogEntry {
            id,
            origin: None,
            flags: 0,
            aux,
            body,
        }
    }

    pub(super) async fn append(
        &mut self,
        log: &PartitionLog,
        random: &mut StdRng,
    ) -> Result<(), LogError> {
        let (first, mut next) = (self.last().index.0 + 1, self.end());
        let count = random.random_range(1..8);
        let entries: Vec<_> = (first..first + count)
            .map(|at| self.random_entry(random, at, &mut next))
            .collect();
        append(log, entries).await.map(|_| ())
    }

    pub(super) fn truncate(&mut self, index: u64) {
        self.entries.retain(|entry| entry.id.index.0 <= index);
        self.log_start = self.log_start.min(self.end());
    }

    pub(super) fn purge(&mut self, index: u64) {
        let last = self.entries.iter().rfind(|entry| entry.id.index.0 <= index);
        if let Some(last) = last {
            self.purged = last.id;
            self.start = Offset(last.base_offset.0 + i64::from(last.records));
            self.log_start = self.log_start.max(self.start);
        }
        self.entries.retain(|entry| entry.id.index.0 > index);
    }

    pub(super) fn check(&self, log: &PartitionLog, random: &mut StdRng) {
        let bounds = log.bounds();
        assert_eq!((bounds.purged, bounds.last), (self.purged, self.last()));
        assert_eq!(
            (bounds.log_start, bounds.log_end),
            (self.log_start, self.end())
        );
        let mut next = self.purged.index.0 + 1;
        while next <= self.last().index.0 {
            let until = EntryIndex(self.last().index.0 + 1);
            let bytes_max = random.random_range(1..20_000);
            let entries = log
                .entries(EntryIndex(next), until, bytes_max)
                .expect("held");
            assert!(!entries.is_empty());
            for entry in entries {
                self.check_entry(next, entry);
                next += 1;
            }
        }
        self.check_headers(log, random);
        let batches: Vec<u32> = self.batches().map(|entry| entry.digest).collect();
        let read = read_all(log, self.log_start, random.random_range(1..9000));
        assert_eq!(read.iter().map(digest).collect::<Vec<_>>(), batches);
        if let Some(last) = self.batches().last() {
            let from = Offset(last.base_offset.0 + i64::from(last.records) - 1);
            let data = log
                .read_blocking(from, self.end(), 1, true)
                .expect("readable");
            assert_eq!(crc32c::crc32c(&data.pieces.concat()), last.digest);
        }
    }

    fn batches(&self) -> impl DoubleEndedIterator<Item = &Expected> {
        let end = |entry: &Expected| entry.base_offset.0 + i64::from(entry.records);
        let visible = move |entry: &&Expected| entry.records > 0 && end(entry) > self.log_start.0;
        self.entries.iter().filter(visible)
    }

    fn check_entry(&self, index: u64, entry: LogEntry) {
        let at = usize::try_from(index - self.purged.index.0 - 1).expect("small");
        let expected = &self.entries[at];
        assert_eq!(entry.id, expected.id);
        match entry.body {
            EntryBody::Batch(batch) => assert_eq!(digest(&batch), expected.digest),
            EntryBody::Opaque { bytes, .. } => assert_eq!(crc32c::crc32c(&bytes), expected.digest),
        }
    }

    fn check_headers(&self, log: &PartitionLog, random: &mut StdRng) {
        let from = self.purged.index.0 + 1;
        let until = EntryIndex(self.last().index.0 + 1);
        let count = random.random_range(1..50);
        let headers = log.headers(EntryIndex(from), until, count).expect("held");
        assert_eq!(headers.len(), count.min(self.entries.len()));
        for (header, expected) in headers.iter().zip(&self.entries) {
            let found = (header.id, header.base_offset, header.record_count);
            assert_eq!(found, (expected.id, expected.base_offset, expected.records));
        }
        for entry in &self.entries {
            assert_eq!(log.entry_id(entry.id.index), Some(entry.id));
        }
    }
}

fn digest(batch: &RecordBatch) -> u32 {
    crc32c::crc32c(&batch.to_bytes())
}

pub(super) async fn step(
    model: &mut Model,
    log: &PartitionLog,
    random: &mut StdRng,
) -> Result<(), LogError> {
    let (purged, last) = (model.purged.index.0, model.last().index.0);
    match random.random_range(0..100) {
        0..80 => model.append(log, random).await?,
        80..88 => {
            let index = random.random_range(last.saturating_sub(40).max(purged)..=last);
            model.truncate(index);
            model.epoch += 1;
            log.truncate_after(EntryIndex(index)).await?;
        }
        88..96 => {
            let index = random.random_range(purged..=last);
            model.purge(index);
            log.purge_to(EntryIndex(index)).await?;
        }
        _ if random.random_bool(0.3) => {
            let epoch = LeaderEpoch(model.epoch);
            let last = EntryId {
                epoch,
                index: EntryIndex(last + 5),
            };
            let next_offset = Offset(model.end().0 + 10);
            *model = Model {
                purged: last,
                log_start: next_offset,
                start: next_offset,
                entries: Vec::new(),
                ..model.clone()
            };
            let producers = ProducerStateTable::default();
            log.reset(LogPosition {
                last,
                next_offset,
                log_start: next_offset,
                producers,
            })
            .await?;
        }
        _ => {
            let end = model.end().0;
            let to = Offset(random.random_range(model.start.0..=end));
            if model.entries.iter().any(|entry| entry.base_offset == to) {
                model.log_start = model.log_start.max(to);
                log.advance_log_start(to);
            }
        }
    }
    Ok(())
}

fn random_config(random: &mut StdRng) -> LogConfig {
    LogConfig {
        segment_bytes: random.random_range(2000..20_000),
        index_interval_bytes: random.random_range(1..2000),
        ..LogConfig::default()
    }
}

/// Makes the log. Until something of it is acknowledged it may vanish, so something is.
async fn begin(manager: &LogManager, random: &mut StdRng) -> Model {
    let mut model = Model::default();
    let log = make(manager, 0, random_config(random));
    model.append(&log, random).await.expect("is durable");
    model
}

/// Changes with checks; every now and then a clean stop or, between two changes, a power loss.
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
        if random.random_bool(0.05) {
            drop(log);
            let start = find(&manager, 0).bounds().log_start;
            manager = machine.restart(manager, &mut random).await;
            let log = find(&manager, 0);
            // A raised log start is an applied decision: the layer above applies it again.
            log.advance_log_start(start);
            model.check(&log, &mut random);
            log.set_config(random_config(&mut random));
        }
    }
    model.check(&find(&manager, 0), &mut random);
    manager.shutdown().await;
}

/// The power goes in the middle of a change: it happened or it did not, and all before it did.
pub(super) async fn run_cut(seed: u64, left_out: Option<SyncPoint>) {
    let mut random = StdRng::seed_from_u64(seed);
    let machine = Machine::without(seed, left_out);
    let (mut manager, _) = machine.open();
    let mut model = begin(&manager, &mut random).await;
    for _ in 0..3 {
        machine.fs.cut_power_after(random.random_range(1..400));
        let log = find(&manager, 0);
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
        model.log_start = log.bounds().log_start;
        model.check(&log, &mut random);
    }
    manager.shutdown().await;
}

/// Takes over what the log made of the change that was cut.
pub(super) fn settle(after: &mut Model, before: Model, log: &PartitionLog) {
    let bounds = log.bounds();
    let fits = |model: &Model| (bounds.purged, bounds.last) == (model.purged, model.last());
    if fits(after) {
        return;
    }
    let appended = after.purged == before.purged && after.entries.len() > before.entries.len();
    if appended && bounds.last.index >= before.last().index {
        // Some of the frames of the last append.
        after.truncate(bounds.last.index.0);
    } else {
        *after = Model {
            epoch: after.epoch,
            sequence: after.sequence,
            ..before
        };
    }
    assert!(
        fits(after),
        "{bounds:?} fits neither {:?} nor {:?}",
        after.last(),
        after.purged
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::soak(40), max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_stops_and_power_losses(seed in any::<u64>()) {
        block_on(run(seed, None));
    }

    #[test]
    fn power_loss_in_the_middle_of_a_change(seed in any::<u64>()) {
        block_on(run_cut(seed, None));
    }
}
