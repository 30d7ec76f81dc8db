//! Which brokers are alive, decided once for all their partitions: a pure state machine of the controller's leader.
//!
//! A broker is heard of by its heartbeats and by its connections. Silence for the session time-out, or the loss of its
//! connections without a word for a short while, fences it; a heartbeat of the run that registered last brings it back.
//! A new leader knows nothing of the past: everybody who was not fenced before gets a whole session.

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog_protocol::types::BrokerId;

use crate::planted::{Bug, planted};

/// Milliseconds of a clock that does not go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

/// How patient the controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// `broker.session.timeout.ms`: silence that counts as death.
    pub session: Duration,
    /// From the loss of a broker's connections to its death, unless it is heard of again: a process that was killed is
    /// gone at once, a connection that broke is made anew within that time.
    pub disconnected: Duration,
}

/// A broker as the metadata shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownBroker {
    /// Its id.
    pub id: BrokerId,
    /// Epoch of its registration.
    pub epoch: i64,
    /// Whether it is fenced.
    pub fenced: bool,
}

/// Something that the controller's leader learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The metadata names these brokers. Also what a new leader begins with.
    Brokers(Vec<KnownBroker>),
    /// A broker says that it is there.
    Heartbeat {
        /// Its id.
        broker: BrokerId,
        /// Epoch that its registration was answered with.
        epoch: i64,
    },
    /// Time went by.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetFenced {
    /// The broker.
    pub broker: BrokerId,
    /// Epoch of the registration that this is about; a later one makes it void.
    pub epoch: i64,
    /// Whether it is to be fenced.
    pub fenced: bool,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    known: KnownBroker,
    /// When it counts as dead unless it is heard of.
    deadline: Moment,
    /// Its state was asked for and the metadata does not show it yet.
    asked: Option<bool>,
    /// It was fenced when this leader began, and nothing was heard of it since.
    unheard: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Liveness {
    patience: Patience,
    sessions: BTreeMap<BrokerId, Session>,
}

impl Liveness {
    /// Knows nobody.
    pub fn new(patience: Patience) -> Liveness {
        Liveness {
            patience,
            sessions: BTreeMap::new(),
        }
    }

    /// Takes an event in; returns what follows from it.
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<SetFenced> {
        match event {
            Event::Brokers(brokers) => self.take_over(&brokers, now),
            Event::Heartbeat { broker, epoch } => self.note_heard(broker, epoch, now),
            Event::Tick => {}
        }
        self.decide(now)
    }

    /// The same, after heartbeats that wait: they came while something else was done, and whoever sent one is not silent.
    pub fn step_after(
        &mut self,
        waiting: impl IntoIterator<Item = (BrokerId, i64, Moment)>,
        event: Event,
        now: Moment,
    ) -> Vec<SetFenced> {
        if !planted(Bug::TickBeforeHeartbeats) {
            for (broker, epoch, at) in waiting {
                self.note_heard(broker, epoch, at);
            }
        }
        self.step(event, now)
    }

    /// When the next broker may have to be fenced, if nothing happens until then.
    pub fn next_deadline(&self) -> Option<Moment> {
        let waiting = self
            .sessions
            .values()
            .filter(|session| !session.known.fenced);
        waiting.map(|session| session.deadline).min()
    }

    fn take_over(&mut self, brokers: &[KnownBroker], now: Moment) {
        let later = if planted(Bug::NoSessionAtFirst) {
            now.after(self.patience.disconnected)
        } else {
            now.after(self.patience.session)
        };
        self.sessions
            .retain(|id, _| brokers.iter().any(|broker| broker.id == *id));
        for broker in brokers {
            // Who is fenced has to be heard of first, whoever leads.
            let deadline = if broker.fenced { now } else { later };
            let session = self.sessions.entry(broker.id).or_insert(Session {
                known: *broker,
                deadline,
                asked: None,
                unheard: broker.fenced,
            });
            if session.known.epoch != broker.epoch {
                // It registered anew, and was heard of by that.
                *session = Session {
                    known: *broker,
                    deadline: later,
                    asked: None,
                    unheard: false,
                };
            }
            if session.asked == Some(broker.fenced) {
                session.asked = None;
            }
            if session.unheard && !broker.fenced {
                // Whoever led before had heard of it.
                session.deadline = later;
                session.unheard = false;
            }
            session.known = *broker;
        }
    }

    /// Takes a heartbeat in without deciding anything yet.
    pub fn note_heard(&mut self, broker: BrokerId, epoch: i64, now: Moment) {
        let later = now.after(self.patience.session);
        // One that was replaced by a later run of itself says nothing of that run.
        if let Some(session) = self.sessions.get_mut(&broker)
            && (session.known.epoch == epoch || planted(Bug::HeartbeatOfAnOlderRun))
        {
            // Those that waited come in any order.
            session.deadline = session.deadline.max(later);
            session.unheard = false;
        }
    }

    /// Takes the loss of connections in without deciding anything yet.
    pub fn note_disconnected(&mut self, broker: BrokerId, now: Moment) {
        let soon = now.after(self.patience.disconnected);
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.deadline = session.deadline.min(soon);
        }
    }

    fn decide(&mut self, now: Moment) -> Vec<SetFenced> {
        let mut changes = Vec::new();
        for (id, session) in &mut self.sessions {
            let dead = session.deadline <= now;
            let shown = session.asked.unwrap_or(session.known.fenced);
            if dead != shown {
                session.asked = Some(dead);
                changes.push(SetFenced {
                    broker: *id,
                    epoch: session.known.epoch,
                    fenced: dead,
                });
            }
        }
        changes
    }

    /// A change did not get through: it is asked for again with the next event.
    pub fn failed(&mut self, change: &SetFenced) {
        if let Some(session) = self.sessions.get_mut(&change.broker)
            && session.known.epoch == change.epoch
            && session.asked == Some(change.fenced)
        {
            session.asked = None;
        }
    }
}

impl Moment {
    /// That much later.
    pub fn after(self, duration: Duration) -> Moment {
        Moment(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience {
        session: Duration::from_millis(1_000),
        disconnected: Duration::from_millis(100),
    };

    fn known(id: i32, epoch: i64, fenced: bool) -> KnownBroker {
        KnownBroker {
            id: BrokerId(id),
            epoch,
            fenced,
        }
    }

    fn beat(id: i32, epoch: i64) -> Event {
        Event::Heartbeat {
            broker: BrokerId(id),
            epoch,
        }
    }

    fn change(id: i32, epoch: i64, fenced: bool) -> SetFenced {
        SetFenced {
            broker: BrokerId(id),
            epoch,
            fenced,
        }
    }

    fn two() -> Liveness {
        let mut liveness = Liveness::new(PATIENCE);
        let brokers = vec![known(1, 5, false), known(2, 6, false)];
        assert_eq!(liveness.step(Event::Brokers(brokers), Moment(0)), []);
        liveness
    }

    #[test]
    fn silence_fences_and_a_heartbeat_brings_back() {
        let mut liveness = two();
        assert_eq!(liveness.step(beat(1, 5), Moment(900)), []);
        assert_eq!(liveness.next_deadline(), Some(Moment(1_000)));
        assert_eq!(
            liveness.step(Event::Tick, Moment(1_000)),
            [change(2, 6, true)]
        );
        assert_eq!(
            liveness.step(Event::Tick, Moment(1_001)),
            [],
            "it was asked for"
        );
        let shown = vec![known(1, 5, false), known(2, 6, true)];
        assert_eq!(liveness.step(Event::Brokers(shown), Moment(1_010)), []);
        assert_eq!(
            liveness.step(beat(2, 6), Moment(1_500)),
            [change(2, 6, false)]
        );
    }

    #[test]
    fn a_killed_process_is_dead_soon_and_a_broken_connection_is_not() {
        let mut liveness = two();
        liveness.note_disconnected(BrokerId(1), Moment(10));
        liveness.note_disconnected(BrokerId(2), Moment(10));
        assert_eq!(liveness.step(Event::Tick, Moment(10)), []);
        assert_eq!(
            liveness.step(beat(2, 6), Moment(60)),
            [],
            "it was only the connection"
        );
        assert_eq!(
            liveness.step(Event::Tick, Moment(110)),
            [change(1, 5, true)]
        );
        assert_eq!(liveness.step(Event::Tick, Moment(900)), []);
    }

    #[test]
    fn a_run_that_was_replaced_does_not_speak_for_the_next() {
        let mut liveness = two();
        let again = vec![known(1, 7, false), known(2, 6, false)];
        liveness.step(Event::Brokers(again), Moment(500));
        liveness.step(beat(1, 5), Moment(1_400));
        liveness.step(beat(2, 6), Moment(1_400));
        assert_eq!(
            liveness.step(Event::Tick, Moment(1_500)),
            [change(1, 7, true)]
        );
    }

    #[test]
    fn heartbeats_that_waited_count_before_the_silence() {
        let mut liveness = two();
        let waiting = [(900, 2), (300, 1), (600, 1)].map(|(at, id)| {
            let epoch = i64::from(id) + 4;
            (BrokerId(id), epoch, Moment(at))
        });
        assert_eq!(liveness.step_after(waiting, Event::Tick, Moment(1_400)), []);
        // An older one that comes after a newer one takes nothing back.
        assert_eq!(liveness.step(beat(1, 5), Moment(500)), []);
        assert_eq!(liveness.next_deadline(), Some(Moment(1_600)));
    }

    #[test]
    fn a_change_that_failed_is_asked_for_again() {
        let mut liveness = two();
        liveness.step(beat(1, 5), Moment(900));
        let asked = liveness.step(Event::Tick, Moment(1_000));
        liveness.failed(&asked[0]);
        assert_eq!(liveness.step(Event::Tick, Moment(1_001)), asked);
    }

    #[test]
    fn a_new_leader_gives_everybody_a_whole_session_who_is_not_fenced() {
        let mut liveness = Liveness::new(PATIENCE);
        let brokers = vec![known(1, 5, false), known(2, 6, true)];
        assert_eq!(liveness.step(Event::Brokers(brokers), Moment(7_000)), []);
        assert_eq!(liveness.next_deadline(), Some(Moment(8_000)));
        assert_eq!(
            liveness.step(beat(2, 6), Moment(7_100)),
            [change(2, 6, false)],
            "it is heard of"
        );
        // What the leader before decided may come late.
        let mut liveness = Liveness::new(PATIENCE);
        let brokers = |fenced| Event::Brokers(vec![known(1, 5, false), known(2, 6, fenced)]);
        assert_eq!(liveness.step(brokers(true), Moment(7_000)), []);
        assert_eq!(liveness.step(brokers(false), Moment(7_010)), []);
        assert_eq!(liveness.step(beat(1, 5), Moment(7_900)), []);
        assert_eq!(
            liveness.step(Event::Tick, Moment(8_010)),
            [change(2, 6, true)]
        );
    }

    proptest! {
        /// Random events, the metadata following some time later: who beats often enough is never fenced, who falls
        /// silent is fenced within a session and a tick.
        #[test]
        fn the_quick_live_and_the_dead_are_found(steps in prop::collection::vec((0_u8..6, 0_u64..200), 200..400)) {
            let mut liveness = two();
            let (mut now, mut image) = (0_u64, vec![known(1, 5, false), known(2, 6, false)]);
            let (mut last_beat, mut pending) = ([0_u64; 2], Vec::new());
            for (kind, wait) in steps {
                now += wait;
                let event = match kind {
                    0 => { last_beat[1] = now; beat(2, 6) }
                    1 => beat(2, 4),
                    2 | 3 => Event::Tick,
                    4 => {
                        for change in pending.drain(..) {
                            let change: SetFenced = change;
                            let slot = image.iter_mut().find(|it| it.id == change.broker).expect("known");
                            slot.fenced = change.fenced;
                        }
                        Event::Brokers(image.clone())
                    }
                    _ => { last_beat[0] = now; beat(1, 5) }
                };
                // The first broker beats every 300 ms whatever happens.
                if now - last_beat[0] > 300 {
                    last_beat[0] = now;
                    pending.extend(liveness.step(beat(1, 5), Moment(now)));
                }
                let changes = liveness.step(event, Moment(now));
                for change in &changes {
                    prop_assert!(change.broker != BrokerId(1), "{change:?} at {now}");
                    prop_assert_eq!(change.fenced, now - last_beat[1] >= 1_000);
                }
                pending.extend(changes);
            }
        }
    }
}
