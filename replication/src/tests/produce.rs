//! Batches get dense offsets, once.

use std::future::Future as _;

use tokio::sync::Notify;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_dense_across_restarts() {
    let mut broker = Broker::start().await;
    let topic = broker.create("dense", 1).await;
    for round in 0..3 {
        let partition = broker.partition(topic, 0);
        assert!(partition.state().is_leader());
        let base = round * 6;
        for (index, records) in [1, 2, 3].into_iter().enumerate() {
            let expected = base + [0, 1, 3][index];
            assert_eq!(
                offset(append(&partition, batch(records), Acks::All).await),
                Offset(expected)
            );
        }
        let state = partition.state();
        assert_eq!(
            (state.log_start, state.high_watermark, state.log_end),
            (Offset(0), Offset(base + 6), Offset(base + 6))
        );
        let epoch = state.leader_epoch;
        drop(partition);
        broker.restart().await;
        let state = broker.partition(topic, 0).state();
        assert!(state.leader_epoch > epoch, "a restart is a new epoch");
        assert_eq!(state.epoch_start, Offset(base + 6));
        let partition = broker.partition(topic, 0);
        eventually("the commit index is recovered", || {
            partition.state().high_watermark == Offset(base + 6)
        })
        .await;
    }
    let expected: Vec<i64> = (0..3)
        .flat_map(|round| [round * 6, round * 6 + 1, round * 6 + 3])
        .collect();
    assert_eq!(stored_offsets(&broker.partition(topic, 0)), expected);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipelining_producer_is_appended_once_and_in_order() {
    let mut broker = Broker::start().await;
    let topic = broker.create("pipeline", 1).await;
    let partition = broker.partition(topic, 0);
    let mut tickets = Vec::new();
    for number in 0..40 {
        // Each batch is sent twice, the second time before the first is answered.
        for _ in 0..2 {
            let request = AppendRequest {
                batch: batch_of(5, number * 3, 3),
                acks: Acks::All,
                epoch: None,
            };
            tickets.push((
                number,
                partition.submit(request).await.expect("has its place"),
            ));
        }
    }
    for (number, ticket) in tickets {
        assert_eq!(offset(ticket.await), Offset(i64::from(number) * 3));
    }
    assert_eq!(
        stored_offsets(&partition),
        (0..40).map(|number| number * 3).collect::<Vec<_>>()
    );
    let refused = append(&partition, batch_of(5, 200, 1), Acks::All).await;
    assert!(
        matches!(
            refused,
            Err(AppendError::OutOfOrderSequence {
                expected: Sequence(120),
                ..
            })
        ),
        "{refused:?}"
    );
    drop(partition);
    broker.restart().await;
    let partition = broker.partition(topic, 0);
    assert_eq!(
        offset(append(&partition, batch_of(5, 117, 3), Acks::All).await),
        Offset(117),
        "known after a restart"
    );
    assert_eq!(
        offset(append(&partition, batch_of(5, 120, 3), Acks::All).await),
        Offset(120)
    );
    let described = partition.describe_producers().expect("reads");
    assert_eq!(described.len(), 1);
    assert_eq!(
        (described[0].producer, described[0].last_sequence),
        (ProducerId(5), Sequence(122))
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_acks_is_answered() {
    let mut broker = Broker::start().await;
    let topic = broker.create_with("acks", 2, &[]).await;
    let partition = broker.partition(topic, 0);
    for number in 0..50 {
        assert_eq!(
            offset(append(&partition, batch(1), Acks::None).await),
            Offset(number * 3)
        );
        assert_eq!(
            offset(append(&partition, batch(1), Acks::Leader).await),
            Offset(number * 3 + 1)
        );
        assert_eq!(
            offset(append(&partition, batch(1), Acks::All).await),
            Offset(number * 3 + 2)
        );
        assert_eq!(partition.state().high_watermark, Offset(number * 3 + 3));
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_are_checked() {
    let mut broker = Broker::start().await;
    let topic = broker.create("epochs", 1).await;
    broker.restart().await;
    let partition = broker.partition(topic, 0);
    let current = partition.state().leader_epoch;
    let submit = |epoch: i32| {
        let epoch = Some(tidelog_protocol::types::LeaderEpoch(epoch));
        partition.submit(AppendRequest {
            batch: batch(1),
            acks: Acks::All,
            epoch,
        })
    };
    assert_eq!(
        submit(current.0 - 1).await.map(drop),
        Err(AppendError::FencedEpoch { current })
    );
    assert_eq!(
        submit(current.0 + 1).await.map(drop),
        Err(AppendError::UnknownEpoch { current })
    );
    submit(current.0)
        .await
        .expect("current")
        .await
        .expect("is appended");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_woken_by_the_high_watermark() {
    let mut broker = Broker::start().await;
    let topic = broker.create("waiters", 2).await;
    let notify = Arc::new(Notify::new());
    let registrations: Vec<_> = (0..2)
        .map(|index| broker.partition(topic, index).register_waiter(&notify))
        .collect();
    for index in 0..2 {
        let woken = notify.notified();
        append(&broker.partition(topic, index), batch(1), Acks::All)
            .await
            .expect("is appended");
        tokio::time::timeout(PATIENCE, woken)
            .await
            .expect("is woken");
    }
    drop(registrations);
    let mut silent = Box::pin(notify.notified());
    append(&broker.partition(topic, 0), batch(1), Acks::All)
        .await
        .expect("is appended");
    // A permit may be left from a wake-up that came twice; after it there is silence.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    if silent.as_mut().poll(&mut context).is_ready() {
        silent = Box::pin(notify.notified());
        append(&broker.partition(topic, 0), batch(1), Acks::All)
            .await
            .expect("is appended");
        assert!(silent.as_mut().poll(&mut context).is_pending());
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_producers_at_once_lose_nothing() {
    let mut broker = Broker::start().await;
    let topic = broker.create("many", 4).await;
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..16 {
        let partition = broker.partition(topic, producer % 4);
        producers.spawn(async move {
            for number in 0..50 {
                append(
                    &partition,
                    batch_of(i64::from(producer), number * 2, 2),
                    Acks::All,
                )
                .await
                .expect("is appended");
            }
        });
    }
    producers.join_all().await;
    for index in 0..4 {
        let offsets = stored_offsets(&broker.partition(topic, index));
        assert_eq!(
            offsets,
            (0..200).map(|number| number * 2).collect::<Vec<_>>()
        );
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_in_flight_waits_for_its_turn() {
    let mut broker = Broker::start().await;
    let topic = broker.create("pressure", 1).await;
    let partition = broker.partition(topic, 0);
    let mut tickets = Vec::new();
    for _ in 0..3_000 {
        let request = AppendRequest {
            batch: batch(1),
            acks: Acks::All,
            epoch: None,
        };
        tickets.push(partition.submit(request).await.expect("has its place"));
    }
    for (number, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(offset(ticket.await), Offset(number as i64));
    }
    broker.stop().await;
}
