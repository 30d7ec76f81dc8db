//! The load driver: requests prepared once and sent again and again, many in flight, at almost no cost of its own, so
//! that what a machine spends is the broker's doing.
//!
//! One thread and one blocking socket per connection. Owns the requests' bytes, the connections and the measuring;
//! knows nothing of topics or leaders beyond the addresses it is given, and nothing of how results are printed.
//! Invariant: every request that is counted has been answered without an error (with `acks=0`: every request before a
//! last one that was answered).

mod batch;
mod connection;
mod consume;
mod error;
mod latencies;
mod pace;
mod prepared;
mod process;
mod produce;
mod reply;
mod run;

pub use batch::PreparedBatch;
pub use error::DriverError;
pub use latencies::Latencies;
pub use process::{ProcessSample, ProcessUse};
pub use run::{Acks, ConsumePlan, Extent, Outcome, ProducePlan, Shape, Target, consume, produce};
