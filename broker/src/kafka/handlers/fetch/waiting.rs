//! A Fetch that waits until it could be answered with enough bytes.
//!
//! Holds no records: each partition is counted on from where the last count ended, and what is read for that is
//! dropped at once. A partition that did not move costs a comparison.

use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::Offset;
use tidelog_replication::{MetadataImage, Partition, WaiterRegistration};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Terms;
use super::read::{self, Allowance, PartitionRead};
use super::session::{PartitionKey, Wanted};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::partitions::Refusal;

/// Pause between two counts of a request whose partitions move without reaching `min_bytes`, so that a busy
/// partition does not have it counted for each small batch.
const COUNT_PAUSE: Duration = Duration::from_millis(2);

/// Pause before memory for reading is asked for again.
const STARVED_PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Waiting<'a> {
    terms: &'a Terms,
    allowance: Allowance,
    partitions: Vec<Counted<'a>>,
    moved: Arc<Notify>,
    _registrations: Vec<WaiterRegistration>,
}

/// One partition that is waited for.
struct Counted<'a> {
    key: &'a PartitionKey,
    asked: &'a Wanted,
    /// What is still to be counted.
    rest: Wanted,
    /// The end of the consumer's view when it was counted last.
    seen: Offset,
    /// There was more to read than was read, perhaps for want of memory.
    is_behind: bool,
    size_bytes: usize,
}

/// What a count found.
enum Count {
    /// Enough, or something that cannot wait.
    Due,
    /// Too little.
    Short,
    /// There was no memory to read with.
    Starved,
}

impl<'a> Waiting<'a> {
    /// Registers with all partitions that were found; `reads` belong to `wanted`, one to one.
    pub(super) fn begin(
        wanted: &'a [(PartitionKey, Wanted)],
        reads: Vec<PartitionRead>,
        terms: &'a Terms,
    ) -> Waiting<'a> {
        let moved = Arc::new(Notify::new());
        let mut allowance = Allowance::of(&terms.rules);
        let (mut partitions, mut registrations) = (Vec::new(), Vec::new());
        for ((key, asked), read) in wanted.iter().zip(reads) {
            let Some(partition) = &read.partition else {
                continue;
            };
            registrations.push(partition.register_waiter(&moved));
            allowance.take(read.size_bytes);
            partitions.push(Counted {
                key,
                asked,
                rest: Wanted {
                    offset: read.next_offset,
                    bytes_max: asked.bytes_max.saturating_sub(read.size_bytes),
                    ..*asked
                },
                seen: read.next_offset.min(read.visible_end),
                is_behind: read.next_offset < read.visible_end,
                size_bytes: read.size_bytes,
            });
        }
        Waiting {
            terms,
            allowance,
            partitions,
            moved,
            _registrations: registrations,
        }
    }

    /// Returns when the request is to be read and answered.
    pub(super) async fn until_due(mut self, cx: &RequestContext, deadline: Instant) {
        loop {
            // What moved between the first reading and the registration is seen by the first count.
            let pause = match self.count(cx).await {
                Count::Due => return,
                Count::Starved => STARVED_PAUSE,
                Count::Short => {
                    tokio::select! {
                        () = self.moved.notified() => {}
                        () = sleep_until(deadline) => return,
                        () = cx.broker.draining.cancelled() => return,
                    }
                    if self.size_bytes() == 0 {
                        continue;
                    }
                    COUNT_PAUSE
                }
            };
            tokio::select! {
                () = sleep_until(deadline.min(Instant::now() + pause)) => {}
                () = cx.broker.draining.cancelled() => return,
            }
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    async fn count(&mut self, cx: &RequestContext) -> Count {
        let image = cx.broker.replication.image();
        self.allowance.is_starved = false;
        for counted in &mut self.partitions {
            let counting = counted.count(cx, &image, self.terms, &mut self.allowance);
            // The errors of partitions that were there: the answer says which.
            if !matches!(counting.await, Ok(false)) {
                return Count::Due;
            }
        }
        if self.size_bytes() >= self.terms.bytes_min {
            Count::Due
        } else if self.allowance.is_starved {
            Count::Starved
        } else {
            Count::Short
        }
    }

    fn size_bytes(&self) -> usize {
        let sizes = self.partitions.iter().map(|counted| counted.size_bytes);
        sizes.fold(0, usize::saturating_add)
    }
}

impl Counted<'_> {
    /// Counts what came since the last time; true if the request is due whatever the others hold.
    async fn count(
        &mut self,
        cx: &RequestContext,
        image: &MetadataImage,
        terms: &Terms,
        allowance: &mut Allowance,
    ) -> Result<bool, Refusal> {
        let (partition, state) = read::served(cx, image, self.key, self.asked, &terms.rules)?;
        if read::diverging(&partition, self.asked)?.is_some() {
            return Ok(true);
        }
        let upto = read::visible_end(&state, self.asked, &terms.rules)?;
        if upto <= self.seen {
            return Ok(false);
        }
        if terms.bytes_min <= 1 && !self.is_behind {
            return Ok(true);
        }
        self.count_to(cx, image, &partition, upto, allowance)
            .await?;
        Ok(false)
    }

    async fn count_to(
        &mut self,
        cx: &RequestContext,
        image: &MetadataImage,
        partition: &Partition,
        upto: Offset,
        allowance: &mut Allowance,
    ) -> Result<(), Refusal> {
        while self.rest.offset < upto {
            let wanted = (self.key, &self.rest);
            let (bytes, next) = read::count(cx, image, partition, wanted, upto, allowance).await?;
            if bytes == 0 {
                if allowance.is_starved {
                    return Ok(());
                }
                // There is more than its part of the reply can hold, so that part is full.
                self.size_bytes = self.size_bytes.max(self.asked.bytes_max);
                break;
            }
            self.size_bytes += bytes;
            self.rest.bytes_max = self.rest.bytes_max.saturating_sub(bytes);
            self.rest.offset = next;
        }
        self.seen = upto;
        self.is_behind = false;
        Ok(())
    }
}
