//! Duplicates whose originals are lost.

use std::time::Duration;

use super::super::order::Placement;
use super::*;
use crate::partition::append::{Acks, AppendRequest};
use crate::tests::{Broker, batch_of};

/// How long the order must stay locked to count as held by the one who waits.
const HELD: Duration = Duration::from_millis(50);

/// Waits until the order is held by somebody for a while.
fn wait_held(shared: &PartitionShared) {
    let began = std::time::Instant::now();
    let mut free = began;
    while free.elapsed() < HELD {
        if shared.order.try_lock().is_some() {
            free = std::time::Instant::now();
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the order is free while a duplicate comes in"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_hears_of_its_lost_original() {
    let mut broker = Broker::start().await;
    let topic = broker.create("lost", 1).await;
    let partition = broker.partition(topic, 0);
    let shared = partition.shared().clone();
    // The original has its place and never comes into the log.
    let placed = shared.order().place(&batch_of(4, 0, 1));
    assert!(matches!(placed, Placement::Placed { .. }));
    let request = AppendRequest {
        batch: batch_of(4, 0, 1),
        acks: Acks::All,
        epoch: None,
    };
    let (duplicate, loser) = tokio::task::block_in_place(|| {
        let duplicates = shared.duplicates.lock();
        let (runtime, replica) = (tokio::runtime::Handle::current(), partition.clone());
        let duplicate = std::thread::spawn(move || runtime.block_on(replica.submit(request)));
        // Between its place and its wait for the original no loss may pass.
        wait_held(&shared);
        let losing = shared.clone();
        let loser = std::thread::spawn(move || losing.stop_leading());
        drop(duplicates);
        (duplicate.join(), loser.join())
    });
    loser.expect("no panic");
    let ticket = duplicate.expect("no panic").expect("is a duplicate");
    let told = tokio::time::timeout(Duration::from_secs(20), ticket).await;
    let answer = told.expect("is told");
    assert!(
        matches!(answer, Err(AppendError::NotLeader { .. })),
        "{answer:?}"
    );
    broker.stop().await;
}
