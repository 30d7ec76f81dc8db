//! Feature levels: the versions of what is written into the cluster's metadata.
//!
//! A cluster is at one level, a program knows some of them. What a level brought is told by the kinds of records that are written
//! from it on, in `record`; when a cluster may go to the next one is judged in `state`.

use std::ops::RangeInclusive;

/// Levels that this program reads and writes.
pub const FEATURE_LEVELS: RangeInclusive<u16> = FEATURE_LEVEL_MIN..=FEATURE_LEVEL_MAX;
/// The lowest of them.
pub const FEATURE_LEVEL_MIN: u16 = 1;
/// The highest of them.
pub const FEATURE_LEVEL_MAX: u16 = 3;
/// Level from which on replicas can be moved and brokers be forgotten.
pub const REASSIGNMENT_LEVEL: u16 = 2;
/// Level from which on a broker that registers as another run leads nothing of what the one before it led.
pub const RUNS_LEVEL: u16 = 3;
/// What the level is called where features have names: in Kafka's requests.
pub const METADATA_FEATURE: &str = "tidelog.metadata";

/// What to say to a program that knows other levels than the one that its cluster is at; `None` if it knows it.
pub fn why_unknown(level: u16, known: &RangeInclusive<u16>) -> Option<String> {
    let (min, max) = (known.start(), known.end());
    if level > *max {
        return Some(format!(
            "the cluster is at feature level {level}, this version knows up to {max}: start the version that the other \
             brokers run"
        ));
    }
    (level < *min).then(|| {
        format!(
            "the cluster is at feature level {level}, this version knows {min} and later ones only: start the version \
             before this one, raise the level with `tidelog cluster upgrade` once all brokers run it, then start this one"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_not_known_is_said_with_what_to_do() {
        assert_eq!(why_unknown(1, &(1..=2)), None);
        assert_eq!(why_unknown(2, &(1..=2)), None);
        let newer = why_unknown(3, &(1..=2)).expect("is not known");
        assert!(
            newer.contains("start the version that the other brokers run"),
            "{newer}"
        );
        let older = why_unknown(1, &(2..=3)).expect("is not known");
        assert!(
            older.contains("start the version before this one"),
            "{older}"
        );
    }
}
