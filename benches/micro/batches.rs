//! The batches that all benchmarks use: records of 1 KiB, as many as the size holds.

use tidelog_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::TimestampMs;

/// Sizes of batches, and how they are called.
pub const SIZES: [(&str, usize); 2] = [("16 KiB", 16 << 10), ("1 MiB", 1 << 20)];

const RECORD_BYTES: usize = 1024;

/// A batch of about `bytes` before compression.
pub fn batch(bytes: usize, compression: Compression) -> RecordBatch {
    let mut builder = BatchBuilder::new(compression);
    let mut value = vec![0; RECORD_BYTES];
    for number in 0..(bytes / (RECORD_BYTES + 16)).max(1) {
        for (at, byte) in value.iter_mut().enumerate() {
            *byte = ((at * 31 + number * 17) % 64) as u8;
        }
        builder
            .push(NewRecord {
                timestamp: TimestampMs(1),
                value: Some(&value),
                ..NewRecord::default()
            })
            .expect("a small record");
    }
    builder.build().expect("a batch with records")
}
