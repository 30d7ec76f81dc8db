//! Bytes of replicas, asked of the brokers that have them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tidelog_client::{Admin, BrokerId, TopicPartition};

/// How long a broker may take to say them. One that has just gone shall not hold up what the others say.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Bytes of each replica of a broker; of brokers that did not answer nothing is known.
pub(super) type Sizes = BTreeMap<BrokerId, BTreeMap<TopicPartition, u64>>;

/// Asks brokers, all at once, for some of their replicas or (`None`) all.
pub(super) async fn ask(
    admin: &Admin,
    brokers: impl IntoIterator<Item = (BrokerId, Option<Vec<TopicPartition>>)>,
) -> Sizes {
    let asked = brokers.into_iter().map(|(broker, of)| async move {
        let sizes = admin.replica_sizes(broker, of.as_deref());
        let answer = tokio::time::timeout(ANSWER_WAIT, sizes).await;
        Some((broker, answer.ok()?.ok()?))
    });
    join_all(asked).await.into_iter().flatten().collect()
}
