//! What was voted and agreed, and is gone at the next start.

use bytes::Bytes;
use tidelog_storage::SyncPoint;
use tidelog_storage::kv::{KeySpace, KvWrite};
use tidelog_storage::log::{EntryIndex, LogDescription};

use super::*;
use crate::controller::METADATA_TOPIC_ID;
use crate::{Role, StoredProblem, check_stored};

/// Stops the broker and opens its logs, without groups.
async fn stopped(broker: &mut Broker) -> Arc<LogManager> {
    broker.stop().await;
    open_logs(broker.directory.path()).await
}

fn description(logs: &LogManager, topic: TopicId, partition: i32) -> LogDescription {
    let all = logs.logs().into_iter();
    let mut found = all.filter(|log| log.topic_id == topic && log.partition.0 == partition);
    found.next().expect("is there")
}

fn forget_vote(logs: &LogManager, log: &LogDescription) {
    let key = [&log.id.0.to_be_bytes()[..], &[1]].concat();
    let forget = KvWrite::Delete(KeySpace::Vote, Bytes::from(key));
    logs.kv()
        .write_sync(vec![forget], SyncPoint::GroupVote)
        .expect("is written");
}

fn problems(logs: &LogManager) -> Vec<StoredProblem> {
    check_stored(&**logs.kv(), &logs.logs()).expect("can be read")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_vote_is_gone_is_offline_and_the_others_go_on() {
    let mut broker = Broker::start().await;
    let topic = broker.create("voted", 2).await;
    let logs = stopped(&mut broker).await;
    assert_eq!(problems(&logs), []);
    forget_vote(&logs, &description(&logs, topic, 0));
    let found = problems(&logs);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].partition.as_deref(), Some("voted-0"));
    logs.shutdown().await;
    drop(logs);
    broker.run().await;
    assert_eq!(broker.partition(topic, 0).state().role, Role::Offline);
    let refused = append(&broker.partition(topic, 0), batch(1), Acks::All).await;
    assert!(
        matches!(&refused, Err(AppendError::Storage(reason)) if reason.contains("vote is missing")),
        "{refused:?}"
    );
    offset(append(&broker.partition(topic, 1), batch(1), Acks::All).await);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_start_without_what_the_controller_voted_or_agreed() {
    let forget_the_log = |logs: Arc<LogManager>, log: LogDescription| async move {
        logs.remove_log(log.id).await.expect("is removed");
    };
    let forget_entries = |logs: Arc<LogManager>, log: LogDescription| async move {
        let log = logs.log_by_id(log.id).expect("is there");
        log.forget_to(EntryIndex(3)).await.expect("is forgotten");
    };
    for (case, expected) in [
        (0, "vote is missing"),
        (1, "metadata log is empty"),
        (2, "begins behind entry 3"),
    ] {
        let mut broker = Broker::start().await;
        broker.create("kept", 1).await;
        let logs = stopped(&mut broker).await;
        let log = description(&logs, METADATA_TOPIC_ID, 0);
        match case {
            0 => forget_vote(&logs, &log),
            1 => forget_the_log(logs.clone(), log).await,
            _ => forget_entries(logs.clone(), log).await,
        }
        let found = problems(&logs);
        assert_eq!(
            found.iter().filter(|it| it.partition.is_none()).count(),
            1,
            "{found:?}"
        );
        logs.shutdown().await;
        drop(logs);
        for _ in 0..2 {
            let refused = broker.try_run().await.expect_err("is refused").to_string();
            assert!(refused.contains(expected), "{refused}");
        }
        let logs = open_logs(broker.directory.path()).await;
        assert!(
            logs.logs().iter().any(|log| log.topic.as_str() == "kept"),
            "a topic was removed"
        );
        logs.shutdown().await;
    }
}
