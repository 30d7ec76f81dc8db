//! Brokers that have joined (`auto.rebalance=on_join`): replicas of others move to them until they hold their share.
//!
//! The plan follows from the image, so whichever broker is the controller goes on with it. That a broker is still to be
//! filled is a setting of it, `broker.filling`: set when it joins, taken away once nothing is left to move. From then on what
//! an operator assigns stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::{BrokerId, PartitionIndex, TopicId, TopicName};
use tidelog_replication::{
    BrokerImage, Command, ConfigResource, MetadataImage, Replication, SubmitError,
};

use super::drain::{MOVES_MAX, is_draining, is_set, live_brokers};
use super::reassign::ReassignmentPlan;

/// The property that says so, of one broker.
pub const FILLING: &str = "broker.filling";

/// What is to be done next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FillPlan {
    /// Replicas that move, or leaderships.
    pub moves: Vec<ReassignmentPlan>,
    /// Brokers that hold their share.
    pub filled: Vec<BrokerId>,
}

/// Asks for replicas of others to move to a broker, or no more.
pub async fn set_filling(
    replication: &Replication,
    broker: BrokerId,
    filling: bool,
    timeout: Duration,
) -> Result<(), SubmitError> {
    let value = filling.then(|| "true".to_owned());
    let command = Command::AlterConfigs {
        resource: ConfigResource::Broker(Some(broker)),
        changes: vec![(FILLING.to_owned(), value)],
    };
    replication
        .controller()
        .submit(command, timeout)
        .await
        .map(drop)
}

/// The next replicas to be moved to brokers that are to be filled: from the broker that holds most to the one that holds
/// least, as long as there are two between them and no rack loses by it. Then leaderships, in the same way.
pub fn plan_fill(image: &MetadataImage) -> FillPlan {
    let mut plan = FillPlan::default();
    let asked = image.brokers().map(|broker| broker.id);
    let asked: Vec<BrokerId> = asked.filter(|id| is_set(image, *id, FILLING)).collect();
    if asked.is_empty() {
        return plan;
    }
    let live = live_brokers(image);
    let is_live = |id: &BrokerId| live.iter().any(|broker| broker.id == *id);
    let (filling, others): (Vec<_>, Vec<_>) = asked.into_iter().partition(is_live);
    // One that is being emptied is not filled; one that is away comes back.
    plan.filled
        .extend(others.into_iter().filter(|id| is_draining(image, *id)));
    if filling.is_empty() {
        return plan;
    }
    let mut shares = Shares::of(image, &live);
    let moving = shares.held.iter().filter(|held| held.is_moving).count();
    let mut is_held_up = false;
    while plan.moves.len() < MOVES_MAX.saturating_sub(moving) {
        match shares.next(image, &filling) {
            Next::Step(step) => plan.moves.push(step),
            Next::HeldUp => {
                is_held_up = true;
                break;
            }
            Next::Nothing => break,
        }
    }
    // What a broker that is away holds is not known to be lost.
    let is_away = |broker: &Arc<BrokerImage>| broker.fenced && !is_draining(image, broker.id);
    if plan.moves.is_empty() && moving == 0 && !is_held_up && !image.brokers().any(is_away) {
        plan.filled.extend(filling);
    }
    plan
}

enum Next {
    Step(ReassignmentPlan),
    /// There is something that may move once it is led, or has moved.
    HeldUp,
    Nothing,
}

/// A partition, with the replicas that it is to have.
struct Held<'a> {
    topic: TopicId,
    name: &'a TopicName,
    index: PartitionIndex,
    replicas: Vec<BrokerId>,
    is_moving: bool,
    /// Whether it may be touched now.
    is_free: bool,
}

/// Who holds what. Only brokers that may get replicas are counted: nothing moves from others, or to them.
struct Shares<'a> {
    held: Vec<Held<'a>>,
    replicas: BTreeMap<BrokerId, usize>,
    leaders: BTreeMap<BrokerId, usize>,
    /// Replicas of a topic on a broker.
    of_topic: BTreeMap<(TopicId, BrokerId), usize>,
}

impl<'a> Shares<'a> {
    fn of(image: &'a MetadataImage, live: &[Arc<BrokerImage>]) -> Shares<'a> {
        let none = || live.iter().map(|broker| (broker.id, 0)).collect();
        let mut shares = Shares {
            held: Vec::with_capacity(image.partition_count()),
            replicas: none(),
            leaders: none(),
            of_topic: BTreeMap::new(),
        };
        for topic in image.topics() {
            for (index, partition) in (0..).map(PartitionIndex).zip(&topic.partitions) {
                let is_moving = partition.reassignment.is_some();
                let held = Held {
                    topic: topic.id,
                    name: &topic.name,
                    index,
                    replicas: partition.wanted().to_vec(),
                    is_moving,
                    is_free: !is_moving && image.live_leader(partition).is_some(),
                };
                shares.count(&held, 1);
                shares.held.push(held);
            }
        }
        // Topics are in no order, and each look is to find the same.
        shares
            .held
            .sort_by(|a, b| (a.name, a.index).cmp(&(b.name, b.index)));
        shares
    }

    fn count(&mut self, held: &Held<'_>, change: isize) {
        let add = |count: &mut usize| *count = count.saturating_add_signed(change);
        if let Some(leaders) = held
            .replicas
            .first()
            .and_then(|id| self.leaders.get_mut(id))
        {
            add(leaders);
        }
        for id in &held.replicas {
            if let Some(replicas) = self.replicas.get_mut(id) {
                add(replicas);
            }
            add(self.of_topic.entry((held.topic, *id)).or_default());
        }
    }

    fn leads(&self, id: BrokerId) -> usize {
        self.leaders.get(&id).copied().unwrap_or_default()
    }

    /// The next step, as if all before it were done.
    fn next(&mut self, image: &MetadataImage, filling: &[BrokerId]) -> Next {
        let mut to: Vec<BrokerId> = filling.to_vec();
        to.sort_by_key(|id| (self.replicas.get(id).copied(), *id));
        let mut is_held_up = false;
        for to in to {
            let found = self.replica_for(image, to).or_else(|| self.lead_for(to));
            match found {
                Some((at, replicas)) if self.is_free(at) => return self.take(at, replicas),
                Some(_) => is_held_up = true,
                None => {}
            }
        }
        match is_held_up {
            true => Next::HeldUp,
            false => Next::Nothing,
        }
    }

    fn is_free(&self, at: usize) -> bool {
        self.held.get(at).is_some_and(|held| held.is_free)
    }

    fn take(&mut self, at: usize, replicas: Vec<BrokerId>) -> Next {
        let Some(mut held) = self.held.get_mut(at).map(|held| Held {
            replicas: std::mem::take(&mut held.replicas),
            ..*held
        }) else {
            return Next::Nothing;
        };
        self.count(&held, -1);
        held.replicas = replicas;
        // Whatever else is to be done with it waits until this is.
        held.is_free = false;
        self.count(&held, 1);
        let step = ReassignmentPlan {
            topic: held.topic,
            partition: held.index,
            target: Some(held.replicas.clone()),
        };
        if let Some(place) = self.held.get_mut(at) {
            *place = held;
        }
        Next::Step(step)
    }

    /// A replica that moves to a broker: the partition, and its replicas then. One that may move now, if there is one.
    fn replica_for(&self, image: &MetadataImage, to: BrokerId) -> Option<(usize, Vec<BrokerId>)> {
        let has = self.replicas.get(&to).copied()?;
        let mut donors: Vec<(BrokerId, usize)> = (self.replicas.iter())
            .map(|(id, count)| (*id, *count))
            .filter(|(_, count)| *count >= has + 2)
            .collect();
        donors.sort_by_key(|(id, count)| (std::cmp::Reverse(*count), *id));
        let mut held_up = None;
        for (from, _) in donors {
            let may_move = |held: &Held<'_>| {
                held.replicas.contains(&from)
                    && !held.replicas.contains(&to)
                    && shares_rack(image, held, to, from) <= shares_rack(image, held, from, from)
            };
            let wants_lead = self.leads(from) >= self.leads(to) + 2;
            let all = self.held.iter().enumerate();
            let best = all
                .filter(|(_, held)| may_move(held))
                .min_by_key(|(_, held)| {
                    let of_topic = self.of_topic.get(&(held.topic, to)).copied();
                    let suits = (held.replicas.first() == Some(&from)) == wants_lead;
                    (!held.is_free, of_topic.unwrap_or_default(), !suits)
                });
            if let Some((at, held)) = best {
                let found = (at, self.replaced(held, from, to));
                if held.is_free {
                    return Some(found);
                }
                held_up.get_or_insert(found);
            }
        }
        held_up
    }

    /// The replicas with one in another's place. Where that was first, the one comes first that leads least.
    fn replaced(&self, held: &Held<'_>, from: BrokerId, to: BrokerId) -> Vec<BrokerId> {
        let replace = |id: &BrokerId| if *id == from { to } else { *id };
        let mut replicas: Vec<BrokerId> = held.replicas.iter().map(replace).collect();
        if held.replicas.first() == Some(&from) {
            let least =
                (replicas.iter().enumerate()).min_by_key(|(at, id)| (self.leads(**id), *at));
            let least = least.map_or(0, |(at, _)| at);
            if let Some(before) = replicas.get_mut(..=least) {
                before.rotate_right(1);
            }
        }
        replicas
    }

    /// A partition that a broker holds and is to be preferred as leader of.
    fn lead_for(&self, to: BrokerId) -> Option<(usize, Vec<BrokerId>)> {
        let leads = self.leads(to);
        let first_leads = |held: &Held<'_>| {
            let first = held.replicas.first().filter(|id| **id != to)?;
            self.leaders.get(first).copied()
        };
        let all = self.held.iter().enumerate();
        let found = all
            .filter(|(_, held)| held.replicas.contains(&to))
            .filter_map(|(at, held)| Some((at, held, first_leads(held)?)))
            .filter(|(_, _, first)| *first >= leads + 2)
            .min_by_key(|(_, held, first)| (!held.is_free, std::cmp::Reverse(*first)));
        let (at, held, _) = found?;
        let mut replicas = held.replicas.clone();
        let place = replicas.iter().position(|id| *id == to)?;
        replicas.get_mut(..=place)?.rotate_right(1);
        Some((at, replicas))
    }
}

/// How many replicas, one left out, are in the rack of a broker.
fn shares_rack(
    image: &MetadataImage,
    held: &Held<'_>,
    broker: BrokerId,
    without: BrokerId,
) -> usize {
    let rack = |id: BrokerId| image.broker(id).and_then(|broker| broker.rack.as_deref());
    let Some(own) = rack(broker) else {
        return 0;
    };
    let others = held.replicas.iter().filter(|id| **id != without);
    others.filter(|id| rack(**id) == Some(own)).count()
}

#[cfg(test)]
mod tests;
