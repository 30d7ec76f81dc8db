//! A batch with part of its records: what compaction leaves of it.
//!
//! Invariant: offsets, last offset delta, leader epoch, producer and sequence stay, so that the batch still stands for
//! all the offsets that it was appended with. Record bytes that stay are copied as they are.

use bytes::{BufMut, Bytes};

use super::record::RecordFormatError;
use super::{BuildError, RecordBatch};
use crate::compression::Compression;
use crate::types::TimestampMs;
use crate::varint;

/// Why a batch cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RetainError {
    /// The section is not what the header says.
    #[error(transparent)]
    Format(#[from] RecordFormatError),
    /// The result does not fit the format, or the codec failed.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl RecordBatch {
    /// The batch with those of its records for which `keep` says true. `section` is its decompressed records section.
    ///
    /// With `delete_horizon` the batch says from then on when its tombstones may go (KIP-534): the horizon takes the
    /// place of the base timestamp, and the records' timestamps are counted from it.
    pub fn retain(
        &self,
        section: &[u8],
        keep: &[bool],
        delete_horizon: Option<TimestampMs>,
    ) -> Result<RecordBatch, RetainError> {
        let base = self.base_timestamp();
        let new_base = delete_horizon.unwrap_or(base);
        let mut kept = Vec::with_capacity(section.len());
        let (mut count, mut max_timestamp) = (0, TimestampMs::NONE);
        let mut rest = section;
        for (index, keep) in keep.iter().enumerate() {
            let malformed = RecordFormatError::Malformed { index };
            let before = rest;
            let length = varint::read_varint(&mut rest).and_then(|len| usize::try_from(len).ok());
            let (record, after) = length
                .and_then(|length| rest.split_at_checked(length))
                .ok_or(RecordFormatError::Cut { index })?;
            rest = after;
            if !keep {
                continue;
            }
            let (attributes, mut body) = record.split_first().ok_or(malformed)?;
            let delta = varint::read_varlong(&mut body).ok_or(malformed)?;
            let timestamp = TimestampMs(base.0.wrapping_add(delta));
            max_timestamp = max_timestamp.max(timestamp);
            count += 1;
            if new_base == base {
                kept.put_slice(&before[..before.len() - after.len()]);
                continue;
            }
            let delta = timestamp.0.wrapping_sub(new_base.0);
            let length = 1 + varint::varlong_len(delta) + body.len();
            let length = i32::try_from(length).map_err(|_| BuildError::TooLarge)?;
            varint::write_varint(&mut kept, length);
            kept.put_u8(*attributes);
            varint::write_varlong(&mut kept, delta);
            kept.put_slice(body);
        }
        let codec = self.compression().unwrap_or(Compression::None);
        let records = if codec == Compression::None {
            Bytes::from(kept)
        } else {
            let mut compressed = Vec::with_capacity(kept.len() / 2);
            let done = codec.compress(&kept, &mut compressed);
            done.map_err(BuildError::from)?;
            Bytes::from(compressed)
        };
        let mut header = self.header;
        let set = header.set_records_bytes(records.len());
        set.ok_or(BuildError::TooLarge)?;
        header.set_record_count(count);
        if let Some(horizon) = delete_horizon {
            header.set_delete_horizon(horizon);
        }
        if !self.is_log_append_time() {
            header.set_max_timestamp(max_timestamp);
        }
        let mut batch = RecordBatch { header, records };
        batch.reseal();
        Ok(batch)
    }

    /// The batch without any record: it stands for its offsets and its producer's sequence.
    pub fn emptied(&self) -> RecordBatch {
        let mut header = self.header;
        header.set_compression(Compression::None);
        header.clear_delete_horizon();
        header.set_record_count(0);
        // A header alone always fits.
        let _fits = header.set_records_bytes(0);
        let records = Bytes::new();
        let mut batch = RecordBatch { header, records };
        batch.reseal();
        batch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{BatchBuilder, NewRecord, Scratch};
    use super::*;
    use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};

    fn batch(values: &[(i64, Option<Vec<u8>>)], codec: Compression) -> RecordBatch {
        let mut builder = BatchBuilder::new(codec)
            .producer(ProducerId(7), ProducerEpoch(2), Sequence(40))
            .at(Offset(1000), LeaderEpoch(5));
        for (timestamp, value) in values {
            let record = NewRecord {
                timestamp: TimestampMs(*timestamp),
                key: Some(b"key"),
                value: value.as_deref(),
                headers: &[(b"h", Some(b"v"))],
            };
            builder.push(record).expect("fits");
        }
        builder.build().expect("has records")
    }

    proptest! {
        #[test]
        fn what_stays_is_as_it_was(
            values in prop::collection::vec(
                (0i64..1 << 40, prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), any::<bool>()), 1..20),
            horizon in prop::option::of(0i64..1 << 41),
            compressed in any::<bool>(),
        ) {
            let codec = if compressed { Compression::Lz4 } else { Compression::None };
            let keep: Vec<bool> = values.iter().map(|(.., keep)| *keep).collect();
            let values: Vec<_> = values.into_iter().map(|(time, value, _)| (time, value)).collect();
            let before = batch(&values, codec);
            let mut scratch = Scratch::new();
            let section = scratch.section(&before).unwrap();
            let after = before.retain(section, &keep, horizon.map(TimestampMs)).unwrap();
            prop_assert!(after.checksum_matches());
            prop_assert_eq!((after.base_offset(), after.last_offset()), (before.base_offset(), before.last_offset()));
            prop_assert_eq!((after.producer_id(), after.producer_epoch()), (before.producer_id(), before.producer_epoch()));
            prop_assert_eq!((after.base_sequence(), after.last_sequence()), (before.base_sequence(), before.last_sequence()));
            prop_assert_eq!((after.leader_epoch(), after.compression()), (before.leader_epoch(), before.compression()));
            prop_assert_eq!(after.delete_horizon(), horizon.map(TimestampMs));
            let records = before.read_records().unwrap().into_iter();
            let expected: Vec<_> = records.zip(&keep).filter(|(_, keep)| **keep).map(|(record, _)| record).collect();
            prop_assert_eq!(after.max_timestamp(),
                expected.iter().map(|record| record.timestamp).max().unwrap_or(TimestampMs::NONE));
            prop_assert_eq!(after.read_records().unwrap(), expected);
            let parsed = RecordBatch::split_first(&mut after.to_bytes()).unwrap();
            prop_assert_eq!(parsed, after);
        }
    }

    #[test]
    fn an_emptied_batch_keeps_its_place() {
        let before = batch(&[(5, Some(vec![1; 100])), (6, None)], Compression::Zstd);
        let after = before.emptied();
        assert!(after.checksum_matches());
        assert_eq!((after.size_bytes(), after.record_count()), (61, 0));
        assert_eq!(after.last_offset(), before.last_offset());
        assert_eq!(after.last_sequence(), before.last_sequence());
        assert_eq!(after.max_timestamp(), TimestampMs(6));
        assert!(after.read_records().expect("readable").is_empty());
    }
}
