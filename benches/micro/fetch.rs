//! Reads of a log in pieces of 1 MiB: recent batches from memory, older ones from a segment in the page cache.

use std::hint::black_box;

use tidelog_protocol::types::Offset;

use crate::append::Logs;
use crate::timing::show;

const FETCH_BYTES: usize = 1 << 20;
const STEPS: u32 = 32;

/// Measures; shuts the logs down.
pub fn run(logs: &Logs) {
    let end = logs.long.bounds().log_end;
    let read = |mut from: Offset| {
        for _ in 0..STEPS {
            let data = logs.long.read_blocking(from, end, FETCH_BYTES, true);
            let data = data.expect("is readable");
            assert!(data.size_bytes > FETCH_BYTES / 2);
            from = black_box(data).next_offset;
        }
    };
    let bytes = FETCH_BYTES;
    show("fetch 1 MiB, segment", STEPS, bytes, || read(Offset(0)));
    // The end of the log is what was appended last: it is still in memory.
    let back = i64::from(STEPS + 2) * (FETCH_BYTES / 1040) as i64;
    let recent = Offset(end.0 - back);
    show("fetch 1 MiB, memory", STEPS, bytes, || read(recent));
    logs.runtime.block_on(logs.manager.shutdown());
}
