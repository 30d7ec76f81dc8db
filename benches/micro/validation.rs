//! What the broker checks before it appends: header, checksum, every record.

use std::hint::black_box;

use tidelog_protocol::batch::Scratch;
use tidelog_protocol::batch::validate::{
    ProduceRules, TimestampType, single_batch, validate_produce,
};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::TimestampMs;

use crate::batches::{SIZES, batch};
use crate::timing::show;

/// Batches of one round.
const STEPS: u32 = 500;

pub fn run() {
    let rules = ProduceRules {
        api_version: 12,
        now: TimestampMs(1),
        max_message_bytes: 2 << 20,
        is_compacted: false,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        compression: None,
    };
    for (name, size) in SIZES {
        for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let bytes = batch(size, codec).to_bytes();
            let mut scratch = Scratch::default();
            show(&format!("validate {name}, {codec:?}"), STEPS, size, || {
                for _ in 0..STEPS {
                    let batch = single_batch(Some(bytes.clone())).expect("one batch");
                    black_box(
                        validate_produce(batch, &rules, &mut scratch).expect("a valid batch"),
                    );
                }
            });
        }
        let sealed = batch(size, Compression::None);
        show(&format!("checksum {name}"), STEPS, size, || {
            for _ in 0..STEPS {
                assert!(black_box(&sealed).checksum_matches());
            }
        });
    }
}
