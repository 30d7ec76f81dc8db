//! Connections that end, peers that stand still, read nothing, or are not there.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_fails_all_that_waits_at_once() {
    let (one, proxy, other) = Ends::proxied().await;
    other.recorder.hold_calls(true);
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let (pool, peer) = (one.pool.clone(), other.me);
            tokio::spawn(async move { pool.call(peer, WAIT, Bytes::new(), PATIENCE).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    proxy.kill_connections();
    for call in calls {
        let lost = call.await.expect("no panic");
        assert_eq!(lost, Err(RequestError::Unreachable(other.me)));
    }
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    other.recorder.hold_calls(false);
    one.connect(other.me).await;
    assert_eq!(
        one.call(other.me, ECHO).await,
        Ok(Bytes::from_static(b"hello"))
    );
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_is_told_from_one_that_stands_still() {
    let (one, proxy, other) = Ends::proxied().await;
    proxy.change(|mode| mode.refuse = true);
    let lost = one
        .status(other.me, |status| matches!(status, PeerStatus::Lost(_)))
        .await;
    assert_eq!(lost, PeerStatus::Lost(Loss::Closed));
    // It stays known while the process is not back.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let now = one.pool.statuses().borrow().get(&other.me).cloned();
    assert_eq!(now, Some(PeerStatus::Lost(Loss::Closed)));
    proxy.change(|mode| mode.refuse = false);
    one.connect(other.me).await;
    proxy.change(|mode| mode.stall_answers = true);
    let lost = one
        .status(other.me, |status| matches!(status, PeerStatus::Lost(_)))
        .await;
    assert_eq!(lost, PeerStatus::Lost(Loss::Silent));
    proxy.change(|mode| mode.stall_answers = false);
    one.connect(other.me).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_stays() {
    let (one, proxy, other) = Ends::proxied().await;
    tokio::time::sleep(patience().silence * 3).await;
    assert_eq!(proxy.accepted(), 2, "connections are made anew");
    assert_eq!(
        one.call(other.me, ECHO).await,
        Ok(Bytes::from_static(b"hello"))
    );
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_other_end_is_gone_without_a_word_is_given_up_by_the_server() {
    let (one, proxy, other) = Ends::proxied().await;
    // No ping gets through, and no end either.
    proxy.change(|mode| mode.stall_requests = true);
    eventually("the server gives it up", || {
        other.server.connections().is_empty()
    })
    .await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_nothing_slows_nobody_but_itself() {
    let mut slow = patience();
    slow.silence = Duration::from_secs(20);
    let one = Ends::start_as(local(replica(1)), slow.clone()).await;
    let stuck = Ends::start_as(local(replica(2)), slow).await;
    let other = Ends::start(3).await;
    let proxy = one.proxy_to(&stuck).await;
    one.know(&other);
    one.connect(stuck.me).await;
    one.connect(other.me).await;
    proxy.change(|mode| mode.stall_requests = true);
    let began = Instant::now();
    // Far more than a lane takes.
    let appends: Vec<_> = (0..64)
        .map(|number| {
            one.pool
                .append(group(number), stuck.me, long_append(1, 1 << 20))
        })
        .map(tokio::spawn)
        .collect();
    // Those that found room wait for their answers; the others came back, after a pause.
    let back = || appends.iter().filter(|append| append.is_finished()).count();
    eventually("they come back", || back() >= 30).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let back = back();
    assert!(back < 60, "{back} of 64 came back: nothing waits");
    for number in 0..100 {
        let answer = one
            .pool
            .append(group(number), other.me, long_append(1, 10))
            .await;
        assert!(answer.is_ok());
    }
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    proxy.change(|mode| mode.stall_requests = false);
    let mut answered = 0;
    for append in appends {
        answered += usize::from(append.await.expect("no panic").is_ok());
    }
    assert!(answered > 0, "what waited was lost");
    for ends in [one, stuck, other] {
        ends.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_finds_no_room_does_not_come_back_at_once() {
    let mut slow = patience();
    slow.silence = Duration::from_secs(20);
    slow.room = Duration::from_millis(700);
    let one = Ends::start_as(local(replica(1)), slow.clone()).await;
    let stuck = Ends::start_as(local(replica(2)), slow).await;
    let proxy = one.proxy_to(&stuck).await;
    one.connect(stuck.me).await;
    proxy.change(|mode| mode.stall_requests = true);
    let filled: Vec<_> = (0..40)
        .map(|number| {
            one.pool
                .append(group(number), stuck.me, long_append(1, 1 << 20))
        })
        .map(tokio::spawn)
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let full = one
        .pool
        .append(group(99), stuck.me, long_append(1, 1 << 20))
        .await;
    assert!(full.is_err());
    assert!(
        began.elapsed() >= Duration::from_millis(600),
        "{:?}",
        began.elapsed()
    );
    filled.iter().for_each(|append| append.abort());
    one.stop().await;
    stuck.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_peer_is_tried_less_and_less_and_found_when_it_is_back() {
    let (one, other) = (Ends::start(1).await, Ends::start(2).await);
    let proxy = one.proxy_to(&other).await;
    proxy.change(|mode| mode.refuse = true);
    one.pool.keep(other.me);
    let mut reachable = one.pool.reachable(other.me);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = one.pool.attempts(other.me);
    assert!(before >= 4, "{before} attempts");
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Two lanes, at least a quarter of a second between two tries of each.
    let later = one.pool.attempts(other.me) - before;
    assert!(later <= 2 * 9, "{later} attempts in two seconds");
    assert!(futures_util::poll!(&mut reachable).is_pending());
    let sent = one.pool.append(group(1), other.me, append_after(1)).await;
    assert!(
        matches!(sent, Err(openraft::errors::RPCError::Unreachable(_))),
        "{sent:?}"
    );
    proxy.change(|mode| mode.refuse = false);
    let back = tokio::time::timeout(PATIENCE, reachable).await;
    back.expect("it is found");
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_moves_is_followed() {
    let (one, other) = (Ends::start(1).await, Ends::start(2).await);
    // Nobody knows where it is.
    one.pool.keep(other.me);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(one.pool.attempts(other.me), 0);
    let dead = Proxy::to(other.server.address()).await;
    dead.change(|mode| mode.refuse = true);
    one.directory.set(other.me.broker, dead.address());
    eventually("it is tried", || one.pool.attempts(other.me) > 0).await;
    one.know(&other);
    one.connect(other.me).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_peer_has_no_connections() {
    let (one, other) = Ends::pair().await;
    one.pool.retain(&Default::default());
    eventually("they end", || other.server.connections().is_empty()).await;
    assert!(one.pool.statuses().borrow().is_empty());
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_an_answer_ends_in_time_and_its_late_answer_hurts_nobody() {
    let (one, other) = Ends::pair().await;
    other.recorder.hold_calls(true);
    let short = Duration::from_millis(100);
    let late = one.pool.call(other.me, WAIT, Bytes::new(), short).await;
    assert_eq!(late, Err(RequestError::Timeout(short)));
    other.recorder.hold_calls(false);
    for _ in 0..20 {
        assert_eq!(
            one.call(other.me, ECHO).await,
            Ok(Bytes::from_static(b"hello"))
        );
    }
    one.stop().await;
    other.stop().await;
}
