//! Peers of a whole broker reach its groups.

use std::net::SocketAddr;

use bytes::Bytes;
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};

use super::proxy::Directory;
use super::*;
use crate::control::{AskError, ControlClient, Request};
use crate::controller::METADATA_TOPIC_ID;
use crate::metadata::levels::FEATURE_LEVEL_MAX;
use crate::raft::network::PeerTransport;
use crate::raft::types::{GroupId, GroupTypes, ReplicaId, Vote};
use crate::{
    CallKind, ClusterDirectory, ClusterSecret, GroupRouter, LinkContext, LocalPeer, PeerPatience,
    PeerPool, PeerServer, Peers, Refusal, RefusalCode, RequestError,
};

fn replica(broker: i32) -> ReplicaId {
    ReplicaId {
        broker: BrokerId(broker),
        directory: Uuid::from_u128(10 + broker as u128),
    }
}

fn local(broker: i32) -> Arc<LocalPeer> {
    let secret = ClusterSecret::new(b"correct horse battery").expect("long enough");
    LocalPeer::new(replica(broker), Uuid::from_u128(99), Some(secret))
}

fn pool(broker: i32, to: SocketAddr) -> PeerPool {
    let directory = Directory::default();
    directory.set(BrokerId(1), to);
    PeerPool::new(LinkContext {
        local: local(broker),
        directory: Arc::new(directory),
        patience: PeerPatience::default(),
    })
}

/// The vote of a replica that asks for one in vain.
async fn vote_of(
    pool: &PeerPool,
    group: GroupId,
    pre_vote: bool,
) -> Result<Vote, RPCError<GroupTypes>> {
    let asked = VoteRequest::new(Vote::new(0, replica(2)), None);
    let answer = pool.vote(group, replica(1), asked, pre_vote).await?;
    assert!(!answer.vote_granted);
    Ok(answer.vote)
}

/// The peer says that it has no such call.
fn assert_unknown_call<T: std::fmt::Debug>(refused: &Result<T, RequestError>) {
    assert!(
        matches!(
            refused,
            Err(RequestError::Refused(Refusal {
                code: RefusalCode::UnknownCall,
                ..
            }))
        ),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_reach_the_controller_and_the_partitions() {
    let router = Arc::new(GroupRouter::default());
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let patience = PeerPatience::default();
    let server = PeerServer::bind(loopback, local(1), router.clone(), patience).await;
    let server = server.expect("binds");
    let other = pool(2, server.address());
    tokio::time::timeout(PATIENCE, other.reachable(replica(1)))
        .await
        .expect("is reachable");
    let controller = GroupId {
        topic: METADATA_TOPIC_ID,
        partition: PartitionIndex(0),
    };
    let early = vote_of(&other, controller, false).await;
    assert!(matches!(early, Err(RPCError::Unreachable(_))), "{early:?}");

    let directory = tempfile::tempdir().expect("a temporary directory");
    let logs = open_logs(directory.path()).await;
    let options = ReplicationOptions::new(
        BrokerId(1),
        Uuid::from_u128(11),
        Uuid::from_u128(99),
        Arc::new(TestConfigs::default()),
    );
    let peers = pool(1, server.address());
    let of_broker = Peers {
        pool: peers.clone(),
        router: router.clone(),
        directory: Arc::new(ClusterDirectory::new(&[])),
        introduced_to: Vec::new(),
    };
    let started = Replication::start(options, logs.clone(), Some(of_broker));
    let replication = started.await.expect("starts");
    let topic = TopicId(Uuid::new_v4());
    let create = Command::CreateTopic {
        name: "reached".into(),
        id: topic,
        assignments: vec![vec![BrokerId(1)]],
        configs: BTreeMap::new(),
    };
    let created = replication.controller().submit(create, PATIENCE).await;
    created.expect("is created");
    let led = replication.wait_led(topic, PATIENCE).await;
    led.expect("is led");

    let partition = GroupId {
        topic,
        partition: PartitionIndex(0),
    };
    for group in [controller, partition] {
        for pre_vote in [false, true] {
            let vote = vote_of(&other, group, pre_vote).await.expect("is answered");
            assert_eq!(vote.leader_id.voted_for, replica(1), "{group:?}");
        }
        let append = AppendEntriesRequest {
            vote: Vote::new_committed(0, replica(2)),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        let answer = other.append(group, replica(1), append).await;
        assert!(
            matches!(answer, Ok(AppendEntriesResponse::HigherVote(_))),
            "{answer:?}"
        );
    }
    let elsewhere = GroupId {
        partition: PartitionIndex(1),
        ..partition
    };
    let unknown = vote_of(&other, elsewhere, false).await;
    assert!(
        matches!(unknown, Err(RPCError::Unreachable(_))),
        "{unknown:?}"
    );

    let body = Bytes::from_static(b"\x01\x00\x01");
    let refused = other.call(replica(1), CallKind(77), body, PATIENCE).await;
    assert_unknown_call(&refused);

    replication.shutdown().await;
    let late = vote_of(&other, partition, false).await;
    assert!(matches!(late, Err(RPCError::Unreachable(_))), "{late:?}");
    for pool in [other, peers] {
        pool.shutdown().await;
    }
    server.shutdown(PATIENCE).await;
    drop(replication);
    logs.shutdown().await;
}

/// One without handlers of calls stands for a version from before a call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_older_broker_does_not_know_is_said_to_be_so() {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let router = Arc::new(GroupRouter::default());
    let server = PeerServer::bind(loopback, local(1), router, PeerPatience::default()).await;
    let server = server.expect("binds");
    let other = pool(2, server.address());
    other.keep(replica(1));
    tokio::time::timeout(PATIENCE, other.reachable(replica(1)))
        .await
        .expect("is reachable");
    let control = ControlClient::new(replica(2), Some(other.clone()));
    control.know([replica(1)]);
    let deadline = || tokio::time::Instant::now() + PATIENCE;
    eventually("it is connected", || control.is_connected(BrokerId(1))).await;
    // By the controller's name and by none: it is told from one that nobody could be asked.
    for hint in [Some(BrokerId(1)), None] {
        let asked = control.ask_controller(hint, &Request::DescribeQuorum, deadline());
        let unknown = asked.await.expect_err("is not known");
        assert_eq!(unknown, AskError::Unknown(BrokerId(1)));
        assert!(
            unknown.to_string().contains("upgrade it first"),
            "{unknown}"
        );
    }
    let hand_over = Request::HandOver(Vec::new());
    let refused = control.ask(replica(1), &hand_over, deadline()).await;
    assert_unknown_call(&refused);
    other.shutdown().await;
    server.shutdown(PATIENCE).await;
}

/// Its connections carry calls, so that it hears why it does not belong there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_knows_less_than_the_clusters_level_reaches_no_group() {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let router = Arc::new(GroupRouter::default());
    let here = local(1);
    let server = PeerServer::bind(loopback, here.clone(), router, PeerPatience::default()).await;
    let server = server.expect("binds");
    let other = pool(2, server.address());
    tokio::time::timeout(PATIENCE, other.reachable(replica(1)))
        .await
        .expect("is reachable");
    let group = GroupId {
        topic: METADATA_TOPIC_ID,
        partition: PartitionIndex(0),
    };
    let why = async || match vote_of(&other, group, false).await {
        Err(RPCError::Unreachable(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(why().await.contains("not hosted here"), "it is one of them");
    here.reach_level(FEATURE_LEVEL_MAX + 1);
    assert!(
        why()
            .await
            .contains("knows less than the cluster's feature level")
    );
    let body = Bytes::from_static(b"\x01\x00\x01");
    let call = other.call(replica(1), CallKind(77), body, PATIENCE).await;
    assert!(matches!(call, Err(RequestError::Refused(_))), "{call:?}");
    // The other way nothing is sent at all.
    other.reach_level(FEATURE_LEVEL_MAX + 1);
    assert!(why().await.contains("no connection"), "{}", why().await);
    let reachable = tokio::time::timeout(Duration::from_millis(200), other.reachable(replica(1)));
    assert!(
        reachable.await.is_err(),
        "its groups wait for another version"
    );
    other.shutdown().await;
    server.shutdown(PATIENCE).await;
}
