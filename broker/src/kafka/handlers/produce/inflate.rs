//! Validation of a batch without holding up the thread of others.
//!
//! How much a compressed batch inflates to is known when it is done, so small results come at once, and what is larger
//! begins again where it may take its time.

use std::cell::RefCell;

use tidelog_protocol::batch::validate::{self, ProduceRejection, ProduceRules, ValidatedBatch};
use tidelog_protocol::batch::{RecordBatch, Scratch};
use tidelog_protocol::compression::Compression;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Batches whose records are more than this are validated beside the runtime: about a millisecond of work.
const AT_ONCE_BYTES_MAX: usize = 1024 * 1024;

thread_local! {
    /// Where compressed records are inflated for validation; bounded, and reused by all connections of a thread.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Checks a client's batch against the rules and brings it into the topic's form.
pub(super) fn validate(
    batch: RecordBatch,
    rules: &ProduceRules,
) -> Result<ValidatedBatch, ProduceRejection> {
    if batch.size_bytes() > AT_ONCE_BYTES_MAX {
        return beside_runtime(|| within(None, batch, rules));
    }
    if batch.compression() == Some(Compression::None) {
        return within(None, batch, rules);
    }
    match within(Some(AT_ONCE_BYTES_MAX), batch.clone(), rules) {
        // Perhaps only for its size.
        Err(_) => beside_runtime(|| within(None, batch, rules)),
        valid => valid,
    }
}

fn within(
    bytes_max: Option<usize>,
    batch: RecordBatch,
    rules: &ProduceRules,
) -> Result<ValidatedBatch, ProduceRejection> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.set_bytes_max(bytes_max);
        validate::validate_produce(batch, rules, scratch)
    })
}

/// Runs `work` with the other tasks of this thread moved away, where the runtime has threads to move them to.
fn beside_runtime<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::batch::{BatchBuilder, NewRecord};
    use tidelog_protocol::types::TimestampMs;

    use super::*;
    use crate::config::{Layers, LoadArgs, Overrides, TopicSettings, load};

    fn batch(value_bytes: usize) -> RecordBatch {
        let mut builder = BatchBuilder::new(Compression::Lz4);
        let value = vec![0; value_bytes];
        let record = NewRecord {
            timestamp: TimestampMs(0),
            key: None,
            value: Some(&value),
            headers: &[],
        };
        builder.push(record).expect("the record fits");
        builder.build().expect("a batch")
    }

    #[test]
    fn batches_are_validated_whatever_they_inflate_to() {
        let loaded = load(&LoadArgs::default()).expect("defaults load");
        let layers = Layers::new(loaded.settings, Overrides::new(), Overrides::new());
        let settings = TopicSettings::resolve(&layers, &Overrides::new());
        let rules = settings.produce_rules(9, TimestampMs(0));
        let runtimes = [
            tokio::runtime::Builder::new_current_thread().build(),
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .build(),
        ];
        for runtime in runtimes {
            runtime.expect("a runtime").block_on(async move {
                for bytes in [10, AT_ONCE_BYTES_MAX / 2, AT_ONCE_BYTES_MAX * 8] {
                    assert!(validate(batch(bytes), &rules).is_ok(), "{bytes} bytes");
                }
            });
        }
    }
}
