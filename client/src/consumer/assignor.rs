//! Who of a group reads what. Pure; the group's leader runs it.
//!
//! Invariant: every partition of a topic goes to exactly one of the members that subscribe to it.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_protocol::types::{PartitionIndex, TopicName, TopicPartition};

/// The strategies that are offered to a group, preferred first. Names are Kafka's: members of all clients vote by
/// them.
pub(super) const OFFERED: [Strategy; 2] = [Strategy::Range, Strategy::RoundRobin];

/// How partitions are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// Of each topic a contiguous range for each member.
    Range,
    /// All partitions of all topics in turn.
    RoundRobin,
}

/// A member's place in the order of members, and what it subscribes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) member_id: String,
    /// Static members are ordered by their own name, so that a restart changes nothing.
    pub(super) instance_id: Option<String>,
    pub(super) topics: Vec<TopicName>,
}

impl Strategy {
    pub(super) fn name(self) -> &'static str {
        match self {
            Strategy::Range => "range",
            Strategy::RoundRobin => "roundrobin",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Strategy> {
        OFFERED.into_iter().find(|offered| offered.name() == name)
    }

    /// Every member's partitions by member id, also of members that get none.
    pub(super) fn assign(
        self,
        subscribers: &[Subscriber],
        partitions: &BTreeMap<TopicName, usize>,
    ) -> BTreeMap<String, Vec<TopicPartition>> {
        let mut ordered: Vec<&Subscriber> = subscribers.iter().collect();
        ordered.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let mut assignment: BTreeMap<String, Vec<TopicPartition>> = ordered
            .iter()
            .map(|member| (member.member_id.clone(), Vec::new()))
            .collect();
        let mut give = |member: &Subscriber, topic: &TopicName, index: usize| {
            let partition = TopicPartition {
                topic: topic.clone(),
                partition: PartitionIndex(i32::try_from(index).unwrap_or(i32::MAX)),
            };
            assignment
                .entry(member.member_id.clone())
                .or_default()
                .push(partition);
        };
        match self {
            Strategy::Range => range(&ordered, partitions, &mut give),
            Strategy::RoundRobin => round_robin(&ordered, partitions, &mut give),
        }
        assignment
    }
}

impl Subscriber {
    fn rank(&self) -> (bool, &str) {
        match &self.instance_id {
            Some(instance) => (false, instance),
            None => (true, &self.member_id),
        }
    }
}

fn range(
    members: &[&Subscriber],
    partitions: &BTreeMap<TopicName, usize>,
    give: &mut impl FnMut(&Subscriber, &TopicName, usize),
) {
    for (topic, &count) in partitions {
        let subscribed: Vec<_> = members
            .iter()
            .filter(|member| member.topics.contains(topic))
            .collect();
        if subscribed.is_empty() {
            continue;
        }
        let (each, larger) = (count / subscribed.len(), count % subscribed.len());
        let mut from = 0;
        for (at, member) in subscribed.iter().enumerate() {
            let until = from + each + usize::from(at < larger);
            (from..until).for_each(|index| give(member, topic, index));
            from = until;
        }
    }
}

fn round_robin(
    members: &[&Subscriber],
    partitions: &BTreeMap<TopicName, usize>,
    give: &mut impl FnMut(&Subscriber, &TopicName, usize),
) {
    let subscribed: BTreeSet<_> = members.iter().flat_map(|member| &member.topics).collect();
    let mut turn = members.iter().cycle();
    for (topic, &count) in partitions.iter().filter(|(t, _)| subscribed.contains(t)) {
        for index in 0..count {
            // Somebody subscribes to the topic, so a whole round finds a member.
            if let Some(member) = turn.find(|member| member.topics.contains(topic)) {
                give(member, topic, index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, topics: &[&str]) -> Subscriber {
        Subscriber {
            member_id: id.to_owned(),
            instance_id: None,
            topics: topics.iter().map(|topic| TopicName::from(*topic)).collect(),
        }
    }

    fn check(
        strategy: Strategy,
        members: &[Subscriber],
        topics: &[(&str, usize)],
        want: &[(&str, &str)],
    ) {
        let partitions = topics
            .iter()
            .map(|(name, n)| (TopicName::from(*name), *n))
            .collect();
        let assignment = strategy.assign(members, &partitions);
        let shown: Vec<(String, String)> = assignment
            .into_iter()
            .map(|(id, partitions)| {
                let list: Vec<_> = partitions.iter().map(ToString::to_string).collect();
                (id, list.join(" "))
            })
            .collect();
        let want: Vec<_> = want
            .iter()
            .map(|(id, list)| ((*id).to_owned(), (*list).to_owned()))
            .collect();
        assert_eq!(shown, want);
    }

    #[test]
    fn range_gives_contiguous_parts_of_each_topic() {
        let members = [member("b", &["t", "u"]), member("a", &["t", "u"])];
        check(
            Strategy::Range,
            &members,
            &[("t", 3), ("u", 2)],
            &[("a", "t-0 t-1 u-0"), ("b", "t-2 u-1")],
        );
    }

    #[test]
    fn round_robin_deals_all_partitions_in_turn() {
        let members = [member("a", &["t", "u"]), member("b", &["t", "u"])];
        check(
            Strategy::RoundRobin,
            &members,
            &[("t", 3), ("u", 2)],
            &[("a", "t-0 t-2 u-1"), ("b", "t-1 u-0")],
        );
    }

    #[test]
    fn members_get_only_topics_that_they_subscribe_to() {
        let members = [
            member("a", &["t"]),
            member("b", &["u"]),
            member("c", &["t"]),
        ];
        for strategy in OFFERED {
            check(
                strategy,
                &members,
                &[("t", 2), ("u", 1), ("nobody", 4)],
                &[("a", "t-0"), ("b", "u-0"), ("c", "t-1")],
            );
        }
    }

    #[test]
    fn members_without_partitions_are_named_too() {
        let members = [member("a", &["t"]), member("b", &["t"])];
        check(
            Strategy::Range,
            &members,
            &[("t", 1)],
            &[("a", "t-0"), ("b", "")],
        );
        check(Strategy::Range, &members, &[], &[("a", ""), ("b", "")]);
    }

    #[test]
    fn static_members_are_ordered_by_their_own_name() {
        let mut first = member("z", &["t"]);
        first.instance_id = Some("1".to_owned());
        let members = [member("a", &["t"]), first];
        check(
            Strategy::Range,
            &members,
            &[("t", 3)],
            &[("a", "t-2"), ("z", "t-0 t-1")],
        );
    }
}
