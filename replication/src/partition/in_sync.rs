//! Which replicas are in sync, by Kafka's rule: those of live brokers that have had all that the leader had at some moment
//! within `replica.lag.time.max.ms`.
//!
//! A pure judgement of what the leader sees, look by look. A new leader has seen nothing yet: it begins with those that
//! were in sync before, each of which has the whole time to show it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tidelog_protocol::types::{BrokerId, LeaderEpoch};

/// What a leader sees of its followers at one moment.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Epoch in which it leads.
    pub epoch: LeaderEpoch,
    /// Index of its last entry.
    pub last: u64,
    /// Its followers that vote, and the last entry that each is known to have.
    pub followers: Vec<(BrokerId, Option<u64>)>,
}

/// From one moment that is kept to the next: what a follower has now is compared with what the leader had then.
const MOMENT_AGE_MIN: Duration = Duration::from_millis(100);

/// Where the leader's log ended at one moment.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Instant,
    last: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct InSync {
    epoch: LeaderEpoch,
    moment: Option<Moment>,
    /// When followers last had all, as far as that is known. Those that are in sync, and no others.
    had_all: BTreeMap<BrokerId, Instant>,
}

impl InSync {
    /// Judges the followers anew. `before` were in sync under the last leader; `lost` are brokers that are not there.
    pub fn look(
        &mut self,
        sight: &Sight,
        before: &[BrokerId],
        lost: &BTreeSet<BrokerId>,
        lag_max: Duration,
        now: Instant,
    ) {
        if self.epoch != sight.epoch || self.moment.is_none() {
            let had_all = before.iter().map(|broker| (*broker, now)).collect();
            *self = InSync {
                epoch: sight.epoch,
                moment: None,
                had_all,
            };
        }
        let earlier = self.moment;
        let is_lost = |broker: &BrokerId| lost.contains(broker);
        for (broker, matched) in &sight.followers {
            let matched = matched.unwrap_or(0);
            let had_then = earlier.filter(|moment| matched >= moment.last);
            if matched >= sight.last {
                self.had_all.insert(*broker, now);
            } else if let Some(then) = had_then {
                let at = self.had_all.entry(*broker).or_insert(then.at);
                *at = (*at).max(then.at);
            }
        }
        self.had_all.retain(|broker, at| {
            let follows = sight.followers.iter().any(|(id, _)| id == broker);
            follows && !is_lost(broker) && now.saturating_duration_since(*at) <= lag_max
        });
        if earlier.is_none_or(|moment| now.saturating_duration_since(moment.at) >= MOMENT_AGE_MIN) {
            self.moment = Some(Moment {
                at: now,
                last: sight.last,
            });
        }
    }

    /// The followers in sync, if this epoch was looked at.
    pub fn followers(&self, epoch: LeaderEpoch) -> Option<impl Iterator<Item = BrokerId> + '_> {
        let seen = self.epoch == epoch && self.moment.is_some();
        seen.then(|| self.had_all.keys().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(30);
    const TWO: BrokerId = BrokerId(2);
    const THREE: BrokerId = BrokerId(3);

    struct Leader {
        in_sync: InSync,
        now: Instant,
        lost: BTreeSet<BrokerId>,
    }

    impl Leader {
        fn new() -> Leader {
            Leader {
                in_sync: InSync::default(),
                now: Instant::now(),
                lost: BTreeSet::new(),
            }
        }

        fn sees(&mut self, after_s: u64, last: u64, two: u64, three: Option<u64>) -> Vec<i32> {
            self.sees_in(1, after_s, last, two, three)
        }

        fn sees_in(
            &mut self,
            epoch: i32,
            after_s: u64,
            last: u64,
            two: u64,
            three: Option<u64>,
        ) -> Vec<i32> {
            self.now += Duration::from_secs(after_s);
            let epoch = LeaderEpoch(epoch);
            let sight = Sight {
                epoch,
                last,
                followers: vec![(TWO, Some(two)), (THREE, three)],
            };
            let before = [BrokerId(1), THREE];
            (self.in_sync).look(&sight, &before, &self.lost, LAG, self.now);
            let followers = self.in_sync.followers(epoch).expect("was looked at");
            followers.map(|broker| broker.0).collect()
        }
    }

    #[test]
    fn a_new_leader_begins_with_those_that_were_in_sync() {
        let mut leader = Leader::new();
        assert!(leader.in_sync.followers(LeaderEpoch(1)).is_none());
        assert_eq!(leader.sees(0, 10, 5, None), [3], "2 was not");
        assert_eq!(leader.sees(30, 10, 5, None), [3], "it has the whole time");
        assert!(leader.sees(1, 10, 5, None).is_empty(), "which is over");
        assert_eq!(leader.sees_in(2, 0, 11, 5, None), [3], "the next leader");
    }

    #[test]
    fn who_follows_a_busy_leader_is_in_sync_without_ever_having_its_end() {
        let mut leader = Leader::new();
        for second in 1..100 {
            // Each time it has what the leader had a second ago.
            let in_sync: Vec<i32> = leader.sees(1, 1_000 * second, 1_000 * (second - 1), None);
            assert_eq!(in_sync.contains(&2), second > 1, "{second}");
        }
    }

    #[test]
    fn who_falls_behind_leaves_after_the_time_and_returns_when_it_has_caught_up() {
        let mut leader = Leader::new();
        assert_eq!(leader.sees(0, 10, 10, Some(10)), [2, 3]);
        assert_eq!(leader.sees(29, 5_000, 10, Some(5_000)), [2, 3]);
        assert_eq!(leader.sees(2, 5_010, 10, Some(5_001)), [3]);
        assert_eq!(leader.sees(1, 5_020, 5_009, Some(5_015)), [3], "nearly");
        assert_eq!(leader.sees(1, 5_030, 5_020, Some(5_030)), [2, 3]);
    }

    #[test]
    fn an_idle_partition_keeps_its_replicas_and_a_lost_broker_leaves_at_once() {
        let mut leader = Leader::new();
        assert_eq!(leader.sees(0, 10, 10, Some(10)), [2, 3]);
        assert_eq!(leader.sees(86_400, 10, 10, Some(10)), [2, 3]);
        leader.lost.insert(TWO);
        assert_eq!(leader.sees(0, 10, 10, Some(10)), [3]);
        leader.lost.clear();
        assert_eq!(leader.sees(1, 10, 10, Some(10)), [2, 3]);
    }
}
