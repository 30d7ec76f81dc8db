//! Bugs that tests switch on, to show that they would be found. Outside of tests there are none.
//!
//! Each stands where the code that decides could go wrong. `tests::simulation` plants one after the other.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))]
pub enum Bug {
    /// A heartbeat of a run that was replaced speaks for the next one.
    HeartbeatOfAnOlderRun,
    /// A new leader of the controller group gives nobody a session.
    NoSessionAtFirst,
    /// Who is silent is fenced before the heartbeats that wait are taken in.
    TickBeforeHeartbeats,
    /// A decision about a run of a broker is carried out on the next one.
    FencedAsAnotherRun,
    /// A leader's report is taken that is older than what is known.
    StaleReport,
    /// A leader's report is taken from a broker that has no replica any more.
    ReportOfAStranger,
    /// New replicas vote before they have caught up.
    VotersBehind,
    /// A reassignment is completed by what was said of an earlier one.
    CompletesAnother,
    /// Brokers that are not there are counted when voters are chosen.
    VotersAway,
    /// Voters are chosen without a look at racks.
    VotersOfOneRack,
    /// Even numbers of voters.
    EvenVoters,
    /// A broker is forgotten that has replicas.
    RemovedWithReplicas,
    /// Another data directory of a broker's id is taken for the old one.
    DirectoryIgnored,
    /// Fenced brokers have a turn to ask for a leadership.
    TurnOfTheFenced,
}

#[cfg(test)]
impl Bug {
    /// All of them.
    pub const ALL: &[Bug] = &[
        Bug::HeartbeatOfAnOlderRun,
        Bug::NoSessionAtFirst,
        Bug::TickBeforeHeartbeats,
        Bug::FencedAsAnotherRun,
        Bug::StaleReport,
        Bug::ReportOfAStranger,
        Bug::VotersBehind,
        Bug::CompletesAnother,
        Bug::VotersAway,
        Bug::VotersOfOneRack,
        Bug::EvenVoters,
        Bug::RemovedWithReplicas,
        Bug::DirectoryIgnored,
        Bug::TurnOfTheFenced,
    ];
}

/// Whether a bug is planted: never, but in a test of this thread.
#[cfg(not(test))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether a bug is planted in this thread.
#[cfg(test)]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Does something with a bug.
#[cfg(test)]
pub fn with_planted<T>(bug: Bug, act: impl FnOnce() -> T) -> T {
    PLANTED.set(Some(bug));
    let done = act();
    PLANTED.set(None);
    done
}
