//! The one batch that a run sends again and again.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tidelog_protocol::batch::{BatchBuilder, HEADER_BYTES, NewRecord};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::TimestampMs;

use crate::error::DriverError;

/// More than a record costs beside its value: lengths, time and offset as differences.
const RECORD_OVERHEAD: usize = 24;

/// A sealed batch.
#[derive(Clone, Debug)]
pub struct PreparedBatch {
    pub(crate) bytes: Bytes,
    /// Records in it.
    pub records: u32,
    /// What it is long before compression, its header included.
    pub plain_bytes: usize,
}

impl PreparedBatch {
    /// As many records of `record_bytes` as `batch_bytes` hold before compression, but at least one.
    pub fn new(
        record_bytes: usize,
        batch_bytes: usize,
        compression: Compression,
    ) -> Result<Self, DriverError> {
        let failed = |error: &dyn std::fmt::Display| DriverError::Plan(error.to_string());
        let mut builder = BatchBuilder::new(compression);
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let timestamp = now();
        let mut records = 0;
        while records == 0
            || builder.section_bytes() + HEADER_BYTES + record_bytes + RECORD_OVERHEAD
                <= batch_bytes
        {
            let value = noise.bytes(record_bytes);
            builder
                .push(NewRecord {
                    timestamp,
                    value: Some(&value),
                    ..NewRecord::default()
                })
                .map_err(|error| failed(&error))?;
            records += 1;
        }
        let plain_bytes = builder.section_bytes() + HEADER_BYTES;
        let batch = builder.build().map_err(|error| failed(&error))?;
        Ok(PreparedBatch {
            bytes: batch.to_bytes(),
            records,
            plain_bytes,
        })
    }

    /// What it is long as it travels.
    pub fn wire_bytes(&self) -> usize {
        self.bytes.len()
    }
}

fn now() -> TimestampMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Letters and digits in no order (xorshift): codecs find about a quarter in them, as in much text that is not prose.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..count)
            .map(|_| {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                LETTERS[(self.0 >> 58) as usize]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::batch::RecordBatch;

    use super::*;

    #[test]
    fn a_batch_is_as_full_as_its_size_allows_and_valid() {
        for (record, size, most) in [(1024, 16384, 15), (1024, 1 << 20, 1014), (10, 1, 1)] {
            let batch = PreparedBatch::new(record, size, Compression::None).unwrap();
            assert_eq!(batch.records, most, "{record} {size}");
            assert_eq!(batch.plain_bytes, batch.wire_bytes());
            let whole = RecordBatch::split_first(&mut batch.bytes.clone()).unwrap();
            assert!(whole.checksum_matches());
            let records = whole.read_records().unwrap();
            assert_eq!(records.len(), batch.records as usize);
            assert_eq!(records[0].value.as_ref().unwrap().len(), record);
        }
    }

    #[test]
    fn compression_counts_before_and_after() {
        let batch = PreparedBatch::new(1024, 16384, Compression::Zstd).unwrap();
        assert!(batch.wire_bytes() < batch.plain_bytes);
        assert_eq!(batch.records, 15);
    }
}
