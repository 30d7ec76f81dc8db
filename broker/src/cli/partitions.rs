//! Partitions of a topic, as the command line names them: by their numbers, or all by none.

use tidelog_client::{Admin, PartitionIndex, TopicName, TopicPartition};

use super::failure::{Failure, about_topic};

/// The named partitions, all of them if none is named. Fails if one does not exist.
pub(super) async fn find(
    admin: &Admin,
    topic: &str,
    named: &[i32],
) -> Result<Vec<TopicPartition>, Failure> {
    let found = admin.describe_topic(&topic.into()).await;
    let found = found.map_err(|error| about_topic(&error, topic))?;
    let all: Vec<_> = found.partitions.iter().map(|it| it.index).collect();
    chosen(&found.name, &all, named)
}

fn chosen(
    topic: &TopicName,
    all: &[PartitionIndex],
    named: &[i32],
) -> Result<Vec<TopicPartition>, Failure> {
    let missing = named
        .iter()
        .find(|index| !all.contains(&PartitionIndex(**index)));
    if let Some(index) = missing {
        let last = all.len().saturating_sub(1);
        return Err(Failure::Failed(format!(
            "topic '{topic}' has no partition {index}: its partitions are 0 to {last}"
        )));
    }
    Ok(all
        .iter()
        .filter(|index| named.is_empty() || named.contains(&index.0))
        .map(|index| TopicPartition {
            topic: topic.clone(),
            partition: *index,
        })
        .collect())
}

/// A partition in a sentence.
pub(super) fn words_of(of: &TopicPartition) -> String {
    format!("partition {} of topic '{}'", of.partition, of.topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_all_or_the_named_ones() {
        let topic = TopicName::from("t");
        let all = [PartitionIndex(0), PartitionIndex(1), PartitionIndex(2)];
        let indexes = |named: &[i32]| {
            let chosen = chosen(&topic, &all, named).unwrap();
            chosen.iter().map(|of| of.partition.0).collect::<Vec<_>>()
        };
        assert_eq!(indexes(&[]), [0, 1, 2]);
        assert_eq!(indexes(&[2, 0]), [0, 2]);
        let Err(Failure::Failed(message)) = chosen(&topic, &all, &[3]) else {
            panic!("partition 3 does not exist");
        };
        assert_eq!(
            message,
            "topic 't' has no partition 3: its partitions are 0 to 2"
        );
    }
}
