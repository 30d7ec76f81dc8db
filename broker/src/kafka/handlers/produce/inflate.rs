//! Validation of a batch without holding up the thread of others, and within the memory budget.
//!
//! How much a compressed batch inflates to is known when it is done, so small results come at once, and what is larger
//! begins again where it may take its time, with more memory of the budget each time.

use std::cell::RefCell;

use tidelog_protocol::batch::validate::{self, ProduceRejection, ProduceRules, ValidatedBatch};
use tidelog_protocol::batch::{RecordBatch, Scratch};
use tidelog_protocol::compression::Compression;
use tidelog_replication::AppendError;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::kafka::budget::MemoryPermit;
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::HandlerError;
use crate::kafka::{errors, memory};

/// Batches whose records are more than this are validated beside the runtime: about a millisecond of work. Nor is
/// less memory than this reserved, as no more threads than the runtime has are at it.
const AT_ONCE_BYTES_MAX: usize = 1024 * 1024;

/// Where the second attempt ends: few batches of honest clients inflate to more.
const SECOND_BYTES_MAX: usize = 16 * AT_ONCE_BYTES_MAX;

thread_local! {
    /// Where compressed records are inflated for validation; bounded, and reused by all connections of a thread.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What came of an attempt.
enum Attempt {
    Done(Result<ValidatedBatch, ProduceRejection>),
    /// The records are larger than was allowed.
    Exceeded(ProduceRejection),
}

/// Checks a client's batch against the rules and brings it into the topic's form.
pub(super) async fn validate(
    cx: &RequestContext,
    batch: RecordBatch,
    rules: &ProduceRules,
) -> Result<ValidatedBatch, ProduceRejection> {
    let bytes_max = memory::inflated_bytes_max(cx);
    validate_in(
        bytes_max,
        |bytes| memory::of_records(cx, bytes),
        batch,
        rules,
    )
    .await
}

/// The same, inflating to `bytes_max` at most, with memory that `reserve` yields.
async fn validate_in<F>(
    bytes_max: usize,
    reserve: impl Fn(usize) -> F,
    batch: RecordBatch,
    rules: &ProduceRules,
) -> Result<ValidatedBatch, ProduceRejection>
where
    F: Future<Output = Result<MemoryPermit, HandlerError>>,
{
    let size = batch.size_bytes();
    if batch.compression() == Some(Compression::None) {
        let is_compressed_anew = rules
            .compression
            .is_some_and(|codec| codec != Compression::None);
        let _memory = match is_compressed_anew && size > AT_ONCE_BYTES_MAX {
            true => Some(reserve(size).await.map_err(|_| no_memory())?),
            false => None,
        };
        return attempt(size, batch, rules).into_result();
    }
    let first = [AT_ONCE_BYTES_MAX, SECOND_BYTES_MAX].into_iter();
    for step in first.filter(|step| (size..bytes_max).contains(step)) {
        // Beside the records there is the codec's window, or the batch that they are compressed to anew.
        let _memory = match step > AT_ONCE_BYTES_MAX {
            true => Some(reserve(2 * step).await.map_err(|_| no_memory())?),
            false => None,
        };
        if let Attempt::Done(result) = attempt(step, batch.clone(), rules) {
            return result;
        }
    }
    let _memory = reserve(2 * bytes_max).await.map_err(|_| no_memory())?;
    attempt(bytes_max, batch, rules).into_result()
}

impl Attempt {
    fn into_result(self) -> Result<ValidatedBatch, ProduceRejection> {
        match self {
            Attempt::Done(result) => result,
            Attempt::Exceeded(rejection) => Err(rejection),
        }
    }
}

/// Nothing was appended: the client waits and tries again.
fn no_memory() -> ProduceRejection {
    ProduceRejection {
        code: errors::append(&AppendError::Overloaded),
        message: "no memory to inflate the records, try again".to_owned(),
        record_errors: Vec::new(),
    }
}

/// Validates a batch whose records have, or inflate to, so many bytes at most.
fn attempt(bytes_max: usize, batch: RecordBatch, rules: &ProduceRules) -> Attempt {
    let work = || {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.set_bytes_max(Some(bytes_max));
            match validate::validate_produce(batch, rules, scratch) {
                Err(rejection) if scratch.exceeded() => Attempt::Exceeded(rejection),
                result => Attempt::Done(result),
            }
        })
    };
    if bytes_max > AT_ONCE_BYTES_MAX {
        beside_runtime(work)
    } else {
        work()
    }
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
    use crate::kafka::budget::MemoryBudget;

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

    const MIB: usize = 1024 * 1024;

    fn rules() -> ProduceRules {
        let loaded = load(&LoadArgs::default()).expect("defaults load");
        let layers = Layers::new(loaded.settings, Overrides::new(), Overrides::new());
        let settings = TopicSettings::resolve(&layers, &Overrides::new());
        settings.produce_rules(9, TimestampMs(0))
    }

    /// Validates a batch; says how much memory was reserved at most.
    async fn validate_counted(
        bytes_max: usize,
        batch: RecordBatch,
    ) -> (Result<ValidatedBatch, ProduceRejection>, usize) {
        let budget = MemoryBudget::new(1 << 30);
        let most = std::cell::Cell::new(0);
        let reserve = |bytes: usize| {
            most.set(most.get().max(bytes));
            let budget = budget.clone();
            async move { Ok(budget.reserve(bytes).await) }
        };
        let result = validate_in(bytes_max, reserve, batch, &rules()).await;
        assert_eq!(budget.used_bytes(), 0);
        (result, most.get())
    }

    #[test]
    fn batches_are_validated_whatever_they_inflate_to() {
        let runtimes = [
            tokio::runtime::Builder::new_current_thread().build(),
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .build(),
        ];
        for runtime in runtimes {
            runtime.expect("a runtime").block_on(async move {
                for (bytes, reserved) in [
                    (10, 0),
                    (MIB / 2, 0),
                    (8 * MIB, 32 * MIB),
                    (30 * MIB, 128 * MIB),
                ] {
                    let (result, most) = validate_counted(64 * MIB, batch(bytes)).await;
                    assert!(result.is_ok(), "{bytes} bytes");
                    assert_eq!(most, reserved, "{bytes} bytes");
                }
            });
        }
    }

    #[tokio::test]
    async fn a_batch_that_inflates_to_more_than_the_budget_holds_is_refused() {
        for bytes_max in [MIB / 2, 4 * MIB, 40 * MIB] {
            let (result, most) = validate_counted(bytes_max, batch(bytes_max)).await;
            let message = result.expect_err("too large").message;
            assert!(message.contains("inflates to more"), "{message}");
            assert_eq!(most, 2 * bytes_max);
        }
    }
}
