//! What goes over a pair of brokers that is well.

use futures_util::future::join_all;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_request_is_answered() {
    let (one, other) = Ends::pair().await;
    let vote = Vote::new(5, one.me);
    for pre_vote in [false, true] {
        let asked = VoteRequest::new(vote, None);
        let answer = one.pool.vote(group(1), other.me, asked, pre_vote).await;
        assert_eq!(answer.expect("is answered").vote_granted, pre_vote);
    }
    for request in [append_after(3), long_append(4, 2 << 20)] {
        let answer = one.pool.append(group(1), other.me, request).await;
        assert!(answer.expect("is answered").is_success());
    }
    assert_eq!(other.recorder.appends_of(group(1)), [3, 4]);
    let transfer = TransferLeaderRequest::new(vote, other.me, None);
    let answer = one.pool.transfer_leader(group(1), other.me, transfer).await;
    assert_eq!(answer.expect("is answered"), Ok(()));
    assert_eq!(
        one.call(other.me, ECHO).await,
        Ok(Bytes::from_static(b"hello"))
    );
    // Too long for the lane of votes.
    let long = Bytes::from(vec![1; 3 << 20]);
    eventually("the bulk lane is connected", || {
        let lanes = other.server.connections();
        if lanes.len() < 3 {
            drop(one.pool.snapshot(group(9), other.me, vote, no_snapshot()));
        }
        lanes.len() == 3
    })
    .await;
    let answer = one.pool.call(other.me, ECHO, long.clone(), PATIENCE).await;
    assert_eq!(answer, Ok(long));
    let refused = one.call(other.me, CallKind(77)).await;
    assert!(
        matches!(&refused, Err(RequestError::Refused(it)) if it.code == RefusalCode::UnknownCall),
        "{refused:?}"
    );
    one.stop().await;
    other.stop().await;
}

fn no_snapshot() -> Snapshot {
    Snapshot {
        meta: openraft::SnapshotMeta {
            last_log_id: None,
            last_membership: Default::default(),
        },
        snapshot: Bytes::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_groups_share_a_pair_and_none_waits_for_another() {
    let (one, other) = Ends::pair().await;
    other.recorder.hold_group(Some(group(0)));
    let held = tokio::spawn(one.pool.append(group(0), other.me, long_append(1, 10)));
    let rounds = (1..=1_000).map(|number| {
        let pool = one.pool.clone();
        let peer = other.me;
        async move {
            for round in 0..5 {
                let request = long_append(round, 100);
                let answer = pool.append(group(number), peer, request).await;
                assert!(answer.expect("is answered").is_success());
            }
        }
    });
    let all = tokio::time::timeout(PATIENCE, join_all(rounds)).await;
    all.expect("no group waits for the one that is held");
    for number in 1..=1_000 {
        assert_eq!(other.recorder.appends_of(group(number)), [0, 1, 2, 3, 4]);
    }
    assert!(!held.is_finished());
    assert_eq!(
        one.call(other.me, ECHO).await,
        Ok(Bytes::from_static(b"hello"))
    );
    other.recorder.hold_group(None);
    let answer = held.await.expect("no panic").expect("is answered");
    assert!(answer.is_success());
    assert_eq!(
        other.server.connections().len(),
        2,
        "connections do not grow"
    );
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_one_group_are_carried_out_in_order_one_at_a_time() {
    let (one, other) = Ends::pair().await;
    let sent = (0..500).map(|index| one.pool.append(group(3), other.me, long_append(index, 10)));
    let answers = join_all(sent).await;
    assert!(answers.iter().all(Result::is_ok));
    let expected: Vec<u64> = (0..500).collect();
    assert_eq!(other.recorder.appends_of(group(3)), expected);
    assert_eq!(other.recorder.running_max.load(Ordering::SeqCst), 1);
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_in_any_order() {
    let (one, other) = Ends::pair().await;
    other.recorder.hold_calls(true);
    let mut first = Box::pin(one.call(other.me, WAIT));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert_eq!(
        one.call(other.me, ECHO).await,
        Ok(Bytes::from_static(b"hello"))
    );
    assert!(futures_util::poll!(&mut first).is_pending());
    other.recorder.hold_calls(false);
    assert_eq!(first.await, Ok(Bytes::from_static(b"hello")));
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_where_its_connection_was_lost() {
    let (one, proxy, other) = Ends::proxied().await;
    let bytes: Bytes = (0..8u32 << 20)
        .map(|number| (number % 251) as u8)
        .collect::<Vec<_>>()
        .into();
    let send = |bytes: &Bytes| {
        let snapshot = Snapshot {
            snapshot: bytes.clone(),
            ..no_snapshot()
        };
        one.pool
            .snapshot(group(1), other.me, Vote::new_committed(1, one.me), snapshot)
    };
    // The first one only has the lane connected.
    drop(send(&bytes));
    eventually("the lane is there", || {
        other.server.connections().len() == 3
    })
    .await;
    proxy.change(|mode| mode.pause = Duration::from_millis(2));
    let before = proxy.passed();
    let sending = tokio::spawn(send(&bytes));
    eventually("half of it has passed", || {
        proxy.passed() - before > 4 << 20
    })
    .await;
    proxy.kill_connections();
    let lost = sending.await.expect("no panic");
    assert!(lost.is_err(), "{lost:?}");
    proxy.change(|mode| mode.pause = Duration::ZERO);
    eventually("it is connected again", || {
        other.server.connections().len() == 3
    })
    .await;
    let before = proxy.passed();
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = send(&bytes).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let passed = proxy.passed() - before;
    assert!(passed < 5 << 20, "{passed} bytes were sent again");
    assert!(*other.recorder.snapshots.lock() == [bytes]);
    one.stop().await;
    other.stop().await;
}
