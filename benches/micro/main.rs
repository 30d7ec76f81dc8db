//! Micro-benchmarks of the three steps that every record takes: validation, append, fetch.
//!
//! One line a figure, median of several rounds; `make bench-micro` runs it. Owns no claim: what the steps cost inside a
//! broker under load is `make bench-kafka`'s to say.

mod append;
mod batches;
mod fetch;
mod timing;
mod validation;

/// As in the broker.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    // `cargo test --benches` asks for nothing but a start.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    validation::run();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let logs = append::run(folder.path());
    fetch::run(&logs);
}
