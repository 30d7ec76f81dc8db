//! The end of a server: what came is answered, or cut off in time.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_come_is_answered_before_the_end() {
    let (one, other) = Ends::pair().await;
    other.recorder.hold_calls(true);
    let (pool, peer) = (one.pool.clone(), other.me);
    let body = Bytes::from_static(b"hello");
    let call = tokio::spawn(async move { pool.call(peer, WAIT, body, PATIENCE).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let recorder = other.recorder.clone();
    let ending = other.server.shutdown(PATIENCE);
    let opened = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        recorder.hold_calls(false);
    };
    let (drained, ()) = tokio::join!(ending, opened);
    assert_eq!(drained, Drained::Whole);
    let answered = call.await.expect("no panic");
    assert_eq!(answered, Ok(Bytes::from_static(b"hello")));
    one.stop().await;
    other.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_end_is_cut_off() {
    let (one, other) = Ends::pair().await;
    other.recorder.hold_calls(true);
    let (pool, peer) = (one.pool.clone(), other.me);
    let call = tokio::spawn(async move { pool.call(peer, WAIT, Bytes::new(), PATIENCE).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    let drained = other.server.shutdown(Duration::from_millis(300)).await;
    assert_eq!(drained, Drained::CutOff);
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    let lost = call.await.expect("no panic");
    assert_eq!(lost, Err(RequestError::Unreachable(other.me)));
    one.stop().await;
    other.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_ends_fails_what_waits() {
    let (one, other) = Ends::pair().await;
    other.recorder.hold_calls(true);
    let (pool, peer) = (one.pool.clone(), other.me);
    let call = tokio::spawn(async move { pool.call(peer, WAIT, Bytes::new(), PATIENCE).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    one.pool.shutdown().await;
    let lost = call.await.expect("no panic");
    assert_eq!(lost, Err(RequestError::Unreachable(other.me)));
    eventually("nothing is connected", || {
        other.server.connections().is_empty()
    })
    .await;
    let after = one.call(other.me, ECHO).await;
    assert_eq!(after, Err(RequestError::Unreachable(other.me)));
    one.stop().await;
    other.stop().await;
}
