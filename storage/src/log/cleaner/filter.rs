//! Which records of a batch stay, by Kafka's rules (KIP-534 for tombstones).
//!
//! Pure. A record stays if its offset is not yet judged, or if it is the newest of its key and not a tombstone whose
//! time has come. Records without a key go. Invariant: offsets, producer and sequence of what stays do not change.

use std::collections::HashMap;

use tidelog_protocol::batch::{RecordBatch, Scratch};
use tidelog_protocol::types::{Offset, ProducerId, TimestampMs};

use super::{CleanStats, OffsetMap};

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Stays as it is.
    Kept,
    /// Is rewritten.
    Changed(RecordBatch),
    /// Goes.
    Gone,
}

/// The rules of one pass.
pub(crate) struct Filter {
    /// Newest offsets.
    pub map: OffsetMap,
    /// Last offset of each producer that is remembered: its batch stays, if only empty.
    pub last_of_producers: HashMap<ProducerId, Offset>,
    /// Time of the pass.
    pub now: TimestampMs,
    /// How long a tombstone stays.
    pub delete_retention_ms: i64,
}

impl Filter {
    /// Judges a batch whose checksum was verified. The error says what is wrong with it.
    pub fn judge(
        &self,
        batch: &RecordBatch,
        scratch: &mut Scratch,
        stats: &mut CleanStats,
    ) -> Result<Fate, String> {
        if batch.is_control() || batch.base_offset() >= self.map.end() {
            let records = u64::try_from(batch.record_count()).unwrap_or(0);
            stats.records_read += records;
            stats.records_kept += records;
            return Ok(Fate::Kept);
        }
        let due = batch
            .delete_horizon()
            .is_some_and(|horizon| horizon <= self.now);
        let (mut kept, mut has_tombstone) = (0_usize, false);
        let mut keep = Vec::with_capacity(usize::try_from(batch.record_count()).unwrap_or(0));
        let section = scratch.section(batch).map_err(|error| error.to_string())?;
        for record in tidelog_protocol::batch::RecordIter::new(section, batch.record_count()) {
            let record = record.map_err(|error| error.to_string())?;
            let offset = i64::from(record.offset_delta);
            let offset = Offset(batch.base_offset().0.saturating_add(offset));
            let judged = offset < self.map.end();
            let tombstone = record.value.is_none();
            let stays = !judged
                || record.key.is_some_and(|key| {
                    let newest = self.map.get(key).is_none_or(|newest| newest <= offset);
                    newest && !(tombstone && due)
                });
            has_tombstone |= stays && judged && tombstone;
            kept += usize::from(stays);
            keep.push(stays);
        }
        stats.records_read += keep.len() as u64;
        stats.records_kept += kept as u64;
        if kept == 0 {
            return Ok(self.without_records(batch));
        }
        let horizon = (has_tombstone && batch.delete_horizon().is_none())
            .then(|| TimestampMs(self.now.0.saturating_add(self.delete_retention_ms)));
        if kept == keep.len() && horizon.is_none() {
            return Ok(Fate::Kept);
        }
        let changed = batch.retain(section, &keep, horizon);
        changed.map(Fate::Changed).map_err(|e| e.to_string())
    }

    /// The last batch of a producer keeps its sequence, the last one of all that was judged the end of the log.
    fn without_records(&self, batch: &RecordBatch) -> Fate {
        let last_of_producer = self
            .last_of_producers
            .get(&batch.producer_id())
            .is_some_and(|last| *last == batch.last_offset());
        if !last_of_producer && batch.next_offset() != self.map.end() {
            Fate::Gone
        } else if batch.record_count() == 0 {
            Fate::Kept
        } else {
            Fate::Changed(batch.emptied())
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::batch::{BatchBuilder, NewRecord};
    use tidelog_protocol::compression::Compression;
    use tidelog_protocol::types::{LeaderEpoch, ProducerEpoch, Sequence};

    use super::*;

    fn batch(base: i64, producer: i64, records: &[(Option<&str>, Option<&str>)]) -> RecordBatch {
        let mut builder = BatchBuilder::new(Compression::None)
            .producer(ProducerId(producer), ProducerEpoch(0), Sequence(0))
            .at(Offset(base), LeaderEpoch(1));
        for (key, value) in records {
            let record = NewRecord {
                timestamp: TimestampMs(100),
                key: key.map(str::as_bytes),
                value: value.map(str::as_bytes),
                headers: &[],
            };
            builder.push(record).expect("fits");
        }
        builder.build().expect("has records")
    }

    fn filter(newest: &[(&str, i64)], end: i64) -> Filter {
        let mut map = OffsetMap::new(100, 10_000);
        for (key, offset) in newest {
            assert!(map.put(key.as_bytes(), Offset(*offset)));
        }
        map.advance_end(Offset(end));
        Filter {
            map,
            last_of_producers: HashMap::from([(ProducerId(9), Offset(11))]),
            now: TimestampMs(1_000),
            delete_retention_ms: 500,
        }
    }

    fn judge(filter: &Filter, batch: &RecordBatch) -> Fate {
        let mut stats = CleanStats::default();
        let fate = filter.judge(batch, &mut Scratch::new(), &mut stats);
        fate.expect("is readable")
    }

    fn offsets(batch: &RecordBatch) -> Vec<i64> {
        let records = batch.read_records().expect("readable");
        records.iter().map(|record| record.offset.0).collect()
    }

    #[test]
    fn the_newest_of_each_key_stays() {
        let filter = filter(&[("a", 10), ("b", 30)], 40);
        let records = [
            (Some("a"), Some("1")),
            (Some("b"), Some("2")),
            (Some("c"), Some("3")),
        ];
        let Fate::Changed(after) = judge(&filter, &batch(10, 1, &records)) else {
            panic!("b is not the newest");
        };
        assert_eq!(offsets(&after), [10, 12], "c was not seen by the map");
        assert_eq!(after.last_offset(), Offset(12));
        let newest = batch(29, 1, &[(Some("c"), Some("1")), (Some("b"), Some("2"))]);
        assert_eq!(judge(&filter, &newest), Fate::Kept);
    }

    #[test]
    fn what_is_not_judged_and_control_batches_stay() {
        let filter = filter(&[("a", 5)], 11);
        let two = batch(10, 1, &[(Some("a"), Some("1")), (Some("a"), Some("2"))]);
        assert_eq!(judge(&filter, &two), Fate::Kept);
        let keyless = batch(50, 1, &[(None, Some("1"))]);
        assert_eq!(judge(&filter, &keyless), Fate::Kept);
    }

    #[test]
    fn records_without_a_key_go() {
        let filter = filter(&[], 100);
        let keyless = batch(50, 1, &[(None, Some("1"))]);
        assert_eq!(judge(&filter, &keyless), Fate::Gone);
    }

    #[test]
    fn the_last_batch_of_a_producer_and_of_the_range_stay_empty() {
        let filter = filter(&[("a", 90)], 100);
        let old =
            |base, producer| batch(base, producer, &[(Some("a"), Some("1")), (Some("a"), None)]);
        assert_eq!(judge(&filter, &old(10, 8)), Fate::Gone);
        let emptied = old(10, 9).emptied();
        assert_eq!(judge(&filter, &old(10, 9)), Fate::Changed(emptied.clone()));
        assert_eq!(judge(&filter, &emptied), Fate::Kept);
        let mut last = filter;
        last.map.put(b"a", Offset(100));
        assert_eq!(last.map.end(), Offset(101));
        let before = batch(99, 8, &[(Some("a"), Some("1")), (None, Some("2"))]);
        assert_eq!(judge(&last, &before), Fate::Changed(before.emptied()));
    }

    #[test]
    fn a_tombstone_stays_until_its_horizon() {
        let mut filter = filter(&[("a", 10)], 40);
        let tombstone = batch(10, 1, &[(Some("a"), None)]);
        let Fate::Changed(marked) = judge(&filter, &tombstone) else {
            panic!("it is marked");
        };
        assert_eq!(marked.delete_horizon(), Some(TimestampMs(1_500)));
        assert_eq!(
            marked.read_records().unwrap()[0].timestamp,
            TimestampMs(100)
        );
        assert_eq!(judge(&filter, &marked), Fate::Kept, "once is enough");
        filter.now = TimestampMs(1_499);
        assert_eq!(judge(&filter, &marked), Fate::Kept);
        filter.now = TimestampMs(1_500);
        assert_eq!(judge(&filter, &marked), Fate::Gone);
    }
}
