//! Those who may not come in.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_of_another_secret_cluster_or_directory_stay_out() {
    let other = Ends::start(2).await;
    let cluster = Uuid::from_u128(99);
    let strangers = [
        (
            LocalPeer::new(replica(1), cluster, secret("incorrect horse battery")),
            other.me,
            RefusedFor::Secret,
        ),
        (
            LocalPeer::new(replica(1), cluster, None),
            other.me,
            RefusedFor::Secret,
        ),
        (
            LocalPeer::new(
                replica(1),
                Uuid::from_u128(98),
                secret("correct horse battery"),
            ),
            other.me,
            RefusedFor::Cluster,
        ),
        (
            local(replica(1)),
            ReplicaId {
                directory: Uuid::from_u128(77),
                ..other.me
            },
            RefusedFor::Replica,
        ),
    ];
    for (stranger, expected, reason) in strangers {
        let one = Ends::start_as(stranger, patience()).await;
        one.directory.set(expected.broker, other.server.address());
        let status = one
            .status(expected, |status| matches!(status, PeerStatus::Refused(..)))
            .await;
        assert!(
            matches!(&status, PeerStatus::Refused(found, _) if *found == reason),
            "{status:?}"
        );
        let lost = one.call(expected, ECHO).await;
        assert_eq!(lost, Err(RequestError::Unreachable(expected)));
        assert!(other.server.connections().is_empty());
        one.stop().await;
    }
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_has_not_joined_may_call_and_nothing_else() {
    let other = Ends::start(2).await;
    let secret = secret("correct horse battery");
    let one = Ends::start_as(LocalPeer::new(replica(1), Uuid::nil(), secret), patience()).await;
    let address = PeerAddress {
        host: "localhost".into(),
        port: other.server.address().port(),
    };
    let (remote, answer) = PeerPool::call_at(
        &one.local,
        &address,
        ECHO,
        Bytes::from_static(b"let me in"),
        &patience(),
        PATIENCE,
    )
    .await
    .expect("is answered");
    assert_eq!(answer, "let me in");
    assert_eq!((remote.id, remote.joined), (other.me, false));
    one.know(&other);
    one.connect(other.me).await;
    let refused = one.pool.append(group(1), other.me, append_after(1)).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(other.recorder.appends_of(group(1)).is_empty());
    // Once it has joined, new connections carry everything.
    one.local.join(remote.cluster);
    one.pool.retain(&Default::default());
    one.connect(other.me).await;
    let answer = one.pool.append(group(1), other.me, append_after(1)).await;
    assert!(answer.is_ok(), "{answer:?}");
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn without_a_secret_only_loopback_is_listened_to() {
    let open = LocalPeer::new(replica(1), Uuid::from_u128(99), None);
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let router = || Arc::new(GroupRouter::default());
    let refused = PeerServer::bind(everywhere, open.clone(), router(), patience()).await;
    let Err(error @ ListenError::NoSecret(_)) = refused else {
        panic!("{refused:?}");
    };
    assert!(error.to_string().contains("set a secret"), "{error}");
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = PeerServer::bind(loopback, open, router(), patience()).await;
    let server = server.expect("binds");
    let drained = server.shutdown(PATIENCE).await;
    assert_eq!(drained, Drained::Whole);
    assert!(ClusterSecret::new(b"short").is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_bounded_in_number_and_time() {
    let mut short = patience();
    short.handshake = Duration::from_secs(5);
    let other = Ends::start_as(local(replica(2)), short).await;
    let mut silent = Vec::new();
    for _ in 0..crate::limits::PEER_HANDSHAKES_MAX {
        let stream = tokio::net::TcpStream::connect(other.server.address()).await;
        silent.push(stream.expect("connects"));
    }
    let closed = async {
        let stream = tokio::net::TcpStream::connect(other.server.address()).await;
        let mut stream = stream.expect("connects");
        tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1]).await
    };
    let closed = tokio::time::timeout(Duration::from_secs(4), closed).await;
    assert!(
        matches!(closed, Ok(Ok(0) | Err(_))),
        "one too many: {closed:?}"
    );
    let one = Ends::start(1).await;
    one.know(&other);
    one.connect(other.me).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_connection_takes_the_place_of_the_old_one() {
    let (one, other) = Ends::pair().await;
    // Another life of the same broker.
    let again = Ends::start(1).await;
    again.know(&other);
    again.connect(other.me).await;
    let lost = one
        .status(other.me, |status| matches!(status, PeerStatus::Lost(_)))
        .await;
    assert_eq!(lost, PeerStatus::Lost(Loss::Closed));
    for ends in [one, again, other] {
        ends.stop().await;
    }
}
