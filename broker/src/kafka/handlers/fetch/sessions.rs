//! All fetch sessions of the broker: a bounded number of slots (`max.incremental.fetch.session.cache.slots`), and of
//! partitions in all of them together, as a session may have many.
//!
//! A consumer that gets no slot is answered with session id 0, which is always legal: it sends all its partitions
//! each time. Sessions outlive connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidelog_protocol::{ErrorCode, limits};

use super::session::{FetchSession, PartitionKey, Told, Wanted};

/// A session that was not used for this long gives its slot to whoever asks; a younger one only to a larger one
/// once it is this old.
const EVICTION_TIME: Duration = Duration::from_secs(120);

/// Most partitions that a session remembers; consumers of more send them all each time.
const PARTITIONS_MAX: usize = 50_000;

/// Epoch of a request that opens a session.
const EPOCH_OPEN: i32 = 0;

/// Epoch of a request that wants no session, and ends the one it names.
const EPOCH_NONE: i32 = -1;

/// See the module.
#[derive(Debug)]
pub struct FetchSessions {
    slots_max: usize,
    slots: Mutex<Slots>,
}

/// Invariant: `partitions` is the sum over all slots.
#[derive(Debug, Default)]
struct Slots {
    by_id: HashMap<i32, Slot>,
    partitions: usize,
}

#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<FetchSession>>,
    created: Instant,
    used: Instant,
    partitions: usize,
}

/// How a request stands to sessions.
#[derive(Debug)]
pub(crate) enum FetchContext {
    /// It stands alone: answer with session id 0 and all partitions.
    Alone(Vec<(PartitionKey, Wanted)>),
    /// It opens a session, if there is a slot: answer with all partitions.
    Opening {
        wanted: Vec<(PartitionKey, Wanted)>,
        by_id: bool,
    },
    /// It goes on with one: answer with what is news.
    Going {
        id: i32,
        epoch: i32,
        session: Arc<Mutex<FetchSession>>,
        wanted: Vec<(PartitionKey, Wanted)>,
    },
}

impl FetchSessions {
    /// No session yet; `slots_max` of 0 means none ever.
    pub fn new(slots_max: usize) -> FetchSessions {
        FetchSessions {
            slots_max,
            slots: Mutex::default(),
        }
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.slots.lock().by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a request means (rule 18). An error stands for the whole response.
    pub(crate) fn context(
        &self,
        (id, epoch): (i32, i32),
        wanted: Vec<(PartitionKey, Wanted)>,
        forgotten: &[PartitionKey],
        by_id: bool,
        now: Instant,
    ) -> Result<FetchContext, ErrorCode> {
        if epoch == EPOCH_OPEN || epoch == EPOCH_NONE {
            self.slots.lock().remove(id);
            return Ok(match epoch {
                EPOCH_OPEN => FetchContext::Opening { wanted, by_id },
                _ => FetchContext::Alone(wanted),
            });
        }
        let mut slots = self.slots.lock();
        let slot = slots
            .by_id
            .get_mut(&id)
            .ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let shared = Arc::clone(&slot.session);
        let mut session = shared.lock();
        if session.epoch() != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.is_by_id() != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.update(&wanted, forgotten);
        let before = std::mem::replace(&mut slot.partitions, session.len());
        slot.used = now;
        slots.partitions = slots.partitions + session.len() - before;
        let has_room = session.len() <= PARTITIONS_MAX
            && (session.len() <= before || slots.partitions <= limits::SESSION_PARTITIONS_MAX);
        if session.len() == 0 || !has_room {
            let all = session.wanted();
            slots.remove(id);
            return Ok(FetchContext::Alone(all));
        }
        let (epoch, wanted) = (session.epoch(), session.wanted());
        drop(session);
        Ok(FetchContext::Going {
            id,
            epoch,
            session: shared,
            wanted,
        })
    }

    /// Opens a session if a slot is free or can be freed; 0 if not.
    fn open(&self, session: FetchSession, now: Instant) -> i32 {
        let partitions = session.len();
        if self.slots_max == 0 || partitions == 0 || partitions > PARTITIONS_MAX {
            return 0;
        }
        let mut slots = self.slots.lock();
        while slots.by_id.len() >= self.slots_max
            || slots.partitions + partitions > limits::SESSION_PARTITIONS_MAX
        {
            if !slots.evict(partitions, now) {
                return 0;
            }
        }
        let session = Arc::new(Mutex::new(session));
        let mut id = rand::random_range(1..=i32::MAX);
        while slots.by_id.contains_key(&id) {
            id = rand::random_range(1..=i32::MAX);
        }
        slots.partitions += partitions;
        slots.by_id.insert(
            id,
            Slot {
                session,
                created: now,
                used: now,
                partitions,
            },
        );
        id
    }
}

impl Slots {
    fn remove(&mut self, id: i32) -> bool {
        let removed = self.by_id.remove(&id);
        self.partitions -= removed.as_ref().map_or(0, |slot| slot.partitions);
        removed.is_some()
    }

    /// Frees the slot of the longest unused session, or of a smaller one; false if all are in use and larger.
    fn evict(&mut self, partitions: usize, now: Instant) -> bool {
        let is_past = |then: Instant| now.saturating_duration_since(then) > EVICTION_TIME;
        let unused = self
            .by_id
            .iter()
            .min_by_key(|(_, slot)| slot.used)
            .map(|(id, slot)| (*id, slot.used));
        if let Some((id, used)) = unused
            && is_past(used)
        {
            return self.remove(id);
        }
        let old = self.by_id.iter().filter(|(_, slot)| is_past(slot.created));
        let smallest = old
            .min_by_key(|(_, slot)| slot.partitions)
            .map(|(id, slot)| (*id, slot.partitions));
        match smallest {
            Some((id, size)) if size < partitions => self.remove(id),
            _ => false,
        }
    }
}

impl FetchContext {
    /// Partitions to read, in order.
    pub(crate) fn wanted(&self) -> &[(PartitionKey, Wanted)] {
        match self {
            FetchContext::Alone(wanted)
            | FetchContext::Opening { wanted, .. }
            | FetchContext::Going { wanted, .. } => wanted,
        }
    }

    /// Which of the partitions the reply must name, by position.
    pub(crate) fn news(&self, told: &[(PartitionKey, Told)]) -> Vec<bool> {
        match self {
            FetchContext::Going { session, .. } => {
                let session = session.lock();
                told.iter()
                    .map(|(key, told)| session.is_news(key, told))
                    .collect()
            }
            _ => vec![true; told.len()],
        }
    }

    /// Notes what the reply says; yields its session id, or the error that stands for the whole response.
    pub(crate) fn conclude(
        &self,
        sessions: &FetchSessions,
        told: &[(PartitionKey, Told)],
        now: Instant,
    ) -> Result<i32, ErrorCode> {
        match self {
            FetchContext::Alone(_) => Ok(0),
            FetchContext::Opening { wanted, by_id } => {
                let mut session = FetchSession::open(wanted, *by_id);
                session.note(told);
                Ok(sessions.open(session, now))
            }
            FetchContext::Going {
                id, epoch, session, ..
            } => {
                let mut session = session.lock();
                // Another request went on with the session while this one waited.
                if session.epoch() != *epoch {
                    return Err(ErrorCode::InvalidFetchSessionEpoch);
                }
                session.note(told);
                Ok(*id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::types::{LeaderEpoch, Offset, PartitionIndex, TopicName};

    use super::*;
    use crate::kafka::handlers::partitions::TopicKey;

    fn partitions(count: i32) -> Vec<(PartitionKey, Wanted)> {
        let wanted = Wanted {
            offset: Offset(0),
            bytes_max: 1,
            current_epoch: -1,
            last_fetched_epoch: LeaderEpoch::NONE,
        };
        let key = |index| (TopicKey::Name(TopicName::from("t")), PartitionIndex(index));
        (0..count).map(|index| (key(index), wanted)).collect()
    }

    fn told(of: &[(PartitionKey, Wanted)]) -> Vec<(PartitionKey, Told)> {
        let told = Told {
            high_watermark: Offset(1),
            log_start: Offset(0),
            has_records: false,
            is_special: false,
            names_preferred: false,
        };
        of.iter().map(|(key, _)| (key.clone(), told)).collect()
    }

    fn open(sessions: &FetchSessions, count: i32, now: Instant) -> i32 {
        let context = sessions
            .context((0, EPOCH_OPEN), partitions(count), &[], false, now)
            .unwrap();
        context
            .conclude(sessions, &told(context.wanted()), now)
            .unwrap()
    }

    #[test]
    fn rule_18_a_session_goes_on_and_omits_what_is_no_news() {
        let (sessions, now) = (FetchSessions::new(10), Instant::now());
        let id = open(&sessions, 2, now);
        assert!(id > 0);
        let context = sessions
            .context((id, 1), Vec::new(), &[], false, now)
            .unwrap();
        assert_eq!(context.wanted().len(), 2);
        assert_eq!(context.news(&told(context.wanted())), [false, false]);
        assert_eq!(
            context.conclude(&sessions, &told(context.wanted()), now),
            Ok(id)
        );
    }

    #[test]
    fn rule_18_errors() {
        let (sessions, now) = (FetchSessions::new(10), Instant::now());
        let id = open(&sessions, 1, now);
        let error = |id, epoch, by_id| {
            sessions
                .context((id, epoch), Vec::new(), &[], by_id, now)
                .unwrap_err()
        };
        assert_eq!(
            error(id.wrapping_add(1), 1, false),
            ErrorCode::FetchSessionIdNotFound
        );
        assert_eq!(error(id, 2, false), ErrorCode::InvalidFetchSessionEpoch);
        assert_eq!(error(id, 1, true), ErrorCode::FetchSessionTopicIdError);
    }

    #[test]
    fn an_overtaken_request_is_told_so() {
        let (sessions, now) = (FetchSessions::new(10), Instant::now());
        let id = open(&sessions, 1, now);
        let first = sessions
            .context((id, 1), Vec::new(), &[], false, now)
            .unwrap();
        let second = sessions
            .context((id, 2), Vec::new(), &[], false, now)
            .unwrap();
        assert_eq!(second.conclude(&sessions, &[], now), Ok(id));
        assert_eq!(
            first.conclude(&sessions, &[], now),
            Err(ErrorCode::InvalidFetchSessionEpoch)
        );
    }

    #[test]
    fn the_final_epoch_ends_the_session() {
        let (sessions, now) = (FetchSessions::new(10), Instant::now());
        let id = open(&sessions, 1, now);
        let context = sessions
            .context((id, EPOCH_NONE), partitions(1), &[], false, now)
            .unwrap();
        assert!(matches!(context, FetchContext::Alone(_)));
        assert!(sessions.is_empty());
    }

    #[test]
    fn sessions_are_bounded_by_their_partitions_together() {
        let (sessions, start) = (FetchSessions::new(1_000), Instant::now());
        let large = i32::try_from(PARTITIONS_MAX).unwrap();
        let full = limits::SESSION_PARTITIONS_MAX / PARTITIONS_MAX;
        let ids: Vec<i32> = (0..full).map(|_| open(&sessions, large, start)).collect();
        assert!(ids.iter().all(|id| *id > 0));
        assert_eq!(open(&sessions, 1, start), 0, "no room for one more");
        let context = sessions
            .context((ids[0], EPOCH_NONE), Vec::new(), &[], false, start)
            .unwrap();
        drop(context);
        let small = open(&sessions, large - 1, start);
        assert!(small > 0, "what a session held is free when it ends");
        assert!(open(&sessions, 1, start) > 0);
        // One that grows beyond the room goes on without a session.
        let grown = sessions
            .context((small, 1), partitions(large), &[], false, start)
            .unwrap();
        assert!(matches!(grown, FetchContext::Alone(all) if all.len() == PARTITIONS_MAX));
        assert_eq!(sessions.len(), full);
        let later = start + EVICTION_TIME + Duration::from_secs(1);
        assert!(open(&sessions, large, later) > 0, "unused ones go");
    }

    #[test]
    fn slots_are_bounded_and_given_up_when_unused_or_small() {
        let (sessions, start) = (FetchSessions::new(2), Instant::now());
        let small = open(&sessions, 1, start);
        let large = open(&sessions, 5, start);
        assert_eq!(open(&sessions, 3, start), 0, "all slots are young");
        let later = start + EVICTION_TIME + Duration::from_secs(1);
        for (id, epoch) in [(small, 1), (large, 1)] {
            sessions
                .context((id, epoch), Vec::new(), &[], false, later)
                .unwrap();
        }
        assert!(
            open(&sessions, 3, later) > 0,
            "larger than the smallest old one"
        );
        assert_eq!(
            sessions
                .context((small, 2), Vec::new(), &[], false, later)
                .unwrap_err(),
            ErrorCode::FetchSessionIdNotFound
        );
        let much_later = later + EVICTION_TIME + Duration::from_secs(1);
        assert!(open(&sessions, 1, much_later) > 0, "unused ones go");
        assert_eq!(sessions.len(), 2);
    }
}
