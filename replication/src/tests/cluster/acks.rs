//! `acks=all` where `min.insync.replicas` asks for more replicas than a majority.

use super::*;

const BARELY: Duration = Duration::from_millis(300);

/// Three replicas all of which are to have what is acknowledged, the last of them cut off.
async fn one_is_missing() -> Cluster {
    let cluster = Cluster::start(InMemory::default(), log_config()).await;
    cluster.partition(0).set_min_insync_replicas(3);
    assert_eq!(
        append_patiently(cluster.partition(0), batch_of(4, 0, 1)).await,
        Offset(0)
    );
    cluster.cut(2, true);
    cluster
}

/// Submits a batch that is committed and not acknowledged.
async fn committed(cluster: &Cluster, batch: RecordBatch) -> crate::AppendTicket {
    let request = AppendRequest {
        batch,
        acks: Acks::All,
        epoch: None,
    };
    let partition = cluster.partition(0);
    let mut ticket = partition.submit(request).await.expect("has its place");
    let answer = tokio::time::timeout(BARELY, &mut ticket).await;
    assert!(answer.is_err(), "{answer:?}");
    assert!(ticket.is_committed());
    assert_eq!(partition.state().high_watermark, Offset(2));
    ticket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_acknowledged_once_all_have_it_that_should() {
    let cluster = one_is_missing().await;
    let tickets = [
        committed(&cluster, batch_of(4, 1, 1)).await,
        // Sent again, as a client does that has heard nothing.
        committed(&cluster, batch_of(4, 1, 1)).await,
    ];
    cluster.cut(2, false);
    for ticket in tickets {
        let answer = tokio::time::timeout(PATIENCE, ticket).await;
        assert_eq!(offset(answer.expect("is answered")), Offset(1));
    }
    assert_eq!(cluster.partition(2).log().bounds().log_end, Offset(2));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_is_enough_where_no_more_is_asked_for() {
    let cluster = one_is_missing().await;
    cluster.partition(0).set_min_insync_replicas(2);
    let appended = append(cluster.partition(0), batch_of(4, 1, 1), Acks::All).await;
    assert_eq!(offset(appended), Offset(1));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_replaced_meanwhile_says_that_it_does_not_know() {
    let cluster = one_is_missing().await;
    let ticket = committed(&cluster, batch_of(4, 1, 1)).await;
    let group = cluster.partition(0).group().expect("runs");
    group.hand_over(cluster.replicas[1].id).await;
    let answer = tokio::time::timeout(PATIENCE, ticket).await;
    assert_eq!(answer.expect("is answered"), Err(AppendError::Unknown));
    cluster.leader_is(1).await;
    cluster.stop().await;
}
