//! What a broker remembers of partitions that it has left: its last vote, and how far its log went.
//!
//! To a member that slept meanwhile, a replica that has left and come back is the one that it was, and a member of a Raft
//! group forgets neither its vote nor its log (Ongaro 2014, figure 3.1). Keys stand beside the votes: eight bytes of ones,
//! which are no log's id, topic id, partition (i32 big-endian).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use parking_lot::Mutex;
use tidelog_protocol::types::{PartitionIndex, TopicId};
use tidelog_storage::SyncPoint;
use tidelog_storage::kv::{KeySpace, KeyValueStore, KvWrite};
use tidelog_storage::log::EntryId;
use uuid::Uuid;

use super::codec::{self, CodecError};
use super::state_store;
use super::types::{GroupId, Vote};

const PREFIX: [u8; 8] = [0xff; 8];

/// What there was when a replica left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// Its vote.
    pub vote: Option<Vote>,
    /// The last entry that it had, or had had before.
    pub last: EntryId,
}

/// The departures of a broker.
pub struct Departures {
    kv: Arc<dyn KeyValueStore>,
    /// By topic first: deleted topics find theirs among many.
    known: Mutex<BTreeMap<GroupId, Departure>>,
}

impl fmt::Debug for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Departures")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Departures {
    /// Reads what is stored. Blocks.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or holds what is none.
    pub fn load(kv: Arc<dyn KeyValueStore>) -> Result<Departures, io::Error> {
        let stored = kv.scan(KeySpace::Vote, &PREFIX).map_err(io::Error::other)?;
        let mut known = BTreeMap::new();
        for (key, value) in stored {
            let (group, departure) = decode(&key, value).map_err(io::Error::other)?;
            known.insert(group, departure);
        }
        let known = Mutex::new(known);
        Ok(Departures { kv, known })
    }

    /// How a replica left a partition that it is, or was, to have again.
    pub fn of(&self, group: GroupId) -> Option<Departure> {
        self.known.lock().get(&group).copied()
    }

    /// Notes that a replica leaves; durable when it returns. One that had not caught up yet had more the time before.
    pub async fn note(&self, group: GroupId, departure: Departure) -> Result<(), io::Error> {
        let before = self.of(group).unwrap_or_default();
        let departure = Departure {
            vote: departure.vote.or(before.vote),
            last: departure.last.max(before.last),
        };
        if departure == before {
            return Ok(());
        }
        let put = KvWrite::Put(KeySpace::Vote, key(group), encode(&departure));
        state_store::write(&*self.kv, vec![put], Some(SyncPoint::GroupLeft))
            .await
            .map_err(io::Error::other)?;
        self.known.lock().insert(group, departure);
        Ok(())
    }

    /// Topics of which a partition was left.
    pub fn topics(&self) -> BTreeSet<TopicId> {
        self.known.lock().keys().map(|group| group.topic).collect()
    }

    /// Forgets a topic that was deleted. What a power loss brings back is forgotten at the next start.
    pub async fn forget(&self, topic: TopicId) -> Result<(), io::Error> {
        let gone: Vec<GroupId> = {
            let mut known = self.known.lock();
            let [first, last] = [i32::MIN, i32::MAX].map(|partition| GroupId {
                topic,
                partition: PartitionIndex(partition),
            });
            let gone: Vec<GroupId> = known.range(first..=last).map(|(it, _)| *it).collect();
            for group in &gone {
                known.remove(group);
            }
            gone
        };
        if gone.is_empty() {
            return Ok(());
        }
        let deletes = gone.iter().map(|group| key(*group));
        let deletes = deletes.map(|key| KvWrite::Delete(KeySpace::Vote, key));
        state_store::write(&*self.kv, deletes.collect(), None)
            .await
            .map_err(io::Error::other)
    }
}

/// Whether a key is one of a departure.
pub fn is_key(key: &[u8]) -> bool {
    key.starts_with(&PREFIX)
}

/// Whether what is stored of a departure can be read.
pub fn check(key: &[u8], value: Bytes) -> Result<(), CodecError> {
    decode(key, value).map(drop)
}

fn key(group: GroupId) -> Bytes {
    let mut key = BytesMut::with_capacity(28);
    key.put_slice(&PREFIX);
    key.put_slice(group.topic.0.as_bytes());
    key.put_i32(group.partition.0);
    key.freeze()
}

fn encode(departure: &Departure) -> Bytes {
    let mut bytes = codec::header();
    codec::put_entry_id(&mut bytes, departure.last);
    bytes.put_u8(u8::from(departure.vote.is_some()));
    if let Some(vote) = &departure.vote {
        codec::put_vote(&mut bytes, vote);
    }
    bytes.freeze()
}

fn decode(key: &[u8], mut value: Bytes) -> Result<(GroupId, Departure), CodecError> {
    let group = group_of(key).map_err(|_| CodecError::Damaged("key of a departure"))?;
    codec::check_header(&mut value)?;
    let last = codec::get_entry_id(&mut value)?;
    let vote = match value.try_get_u8()? {
        0 => None,
        _ => Some(codec::get_vote(&mut value)?),
    };
    Ok((group, Departure { vote, last }))
}

fn group_of(key: &[u8]) -> Result<GroupId, TryGetError> {
    let mut rest = key.get(PREFIX.len()..).unwrap_or_default();
    let topic = TopicId(Uuid::from_u128(rest.try_get_u128()?));
    let partition = PartitionIndex(rest.try_get_i32()?);
    Ok(GroupId { topic, partition })
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::types::{BrokerId, LeaderEpoch};
    use tidelog_storage::kv::MemoryKv;
    use tidelog_storage::log::EntryIndex;

    use super::super::types::ReplicaId;
    use super::*;

    fn group(topic: u128, partition: i32) -> GroupId {
        GroupId {
            topic: TopicId(Uuid::from_u128(topic)),
            partition: PartitionIndex(partition),
        }
    }

    fn departure(term: u64, epoch: i32, index: u64) -> Departure {
        let me = ReplicaId {
            broker: BrokerId(1),
            directory: Uuid::from_u128(3),
        };
        Departure {
            vote: Some(Vote::new(term, me)),
            last: EntryId {
                epoch: LeaderEpoch(epoch),
                index: EntryIndex(index),
            },
        }
    }

    fn load(kv: &Arc<MemoryKv>) -> Departures {
        Departures::load(kv.clone()).expect("is read")
    }

    #[tokio::test]
    async fn departures_survive_a_power_loss_and_not_without_their_sync() {
        for left_out in [None, Some(SyncPoint::GroupLeft)] {
            let kv = Arc::new(MemoryKv::new().expect("starts"));
            kv.leave_out(left_out);
            let departures = load(&kv);
            let noted = departures.note(group(1, 2), departure(7, 6, 40)).await;
            noted.expect("is written");
            kv.power_loss();
            let found = load(&kv).of(group(1, 2));
            let expected = left_out.is_none().then(|| departure(7, 6, 40));
            assert_eq!(found, expected);
        }
    }

    #[tokio::test]
    async fn one_who_leaves_before_it_has_caught_up_still_had_more() {
        let kv = Arc::new(MemoryKv::new().expect("starts"));
        let departures = load(&kv);
        let note = async |it| departures.note(group(1, 2), it).await.expect("is written");
        note(departure(7, 6, 40)).await;
        note(departure(8, 6, 12)).await;
        assert_eq!(load(&kv).of(group(1, 2)), Some(departure(8, 6, 40)));
        note(Departure::default()).await;
        assert_eq!(load(&kv).of(group(1, 2)), Some(departure(8, 6, 40)));
        // A later term counts for more than a longer log.
        note(departure(9, 8, 3)).await;
        assert_eq!(departures.of(group(1, 2)), Some(departure(9, 8, 3)));
    }

    #[tokio::test]
    async fn a_deleted_topic_is_forgotten() {
        let kv = Arc::new(MemoryKv::new().expect("starts"));
        let departures = load(&kv);
        for group in [group(1, 0), group(1, 1), group(2, 0)] {
            let noted = departures.note(group, departure(7, 6, 40)).await;
            noted.expect("is written");
        }
        departures.forget(group(1, 0).topic).await.expect("is gone");
        for known in [departures, load(&kv)] {
            assert_eq!(known.topics(), BTreeSet::from([group(2, 0).topic]));
        }
    }

    #[tokio::test]
    async fn what_is_none_is_refused() {
        let kv = Arc::new(MemoryKv::new().expect("starts"));
        let short = KvWrite::Put(
            KeySpace::Vote,
            key(group(1, 0)),
            Bytes::from_static(b"\x01"),
        );
        let written = state_store::write(&*kv, vec![short], None).await;
        written.expect("is written");
        assert!(Departures::load(kv).is_err());
    }
}
