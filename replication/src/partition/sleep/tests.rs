use tidelog_protocol::types::LeaderEpoch;
use tidelog_storage::log::EntryIndex;

use super::*;

fn entry(index: u64) -> EntryId {
    EntryId {
        epoch: LeaderEpoch(3),
        index: EntryIndex(index),
    }
}

fn idle() -> Standing {
    Standing {
        running: true,
        led: true,
        votes: true,
        settled: true,
        last: entry(9),
        applied: entry(9),
        whole: true,
        awaited: false,
        behind: 0,
    }
}

#[test]
fn a_group_with_nothing_to_do_sleeps() {
    assert!(may_sleep(&idle()));
}

#[test]
fn a_group_that_has_something_to_do_does_not() {
    type Change = fn(&mut Standing);
    let busy: [(&str, Change); 10] = [
        ("its task ended", |it| it.running = false),
        ("nobody leads it", |it| it.led = false),
        ("it is a learner", |it| it.votes = false),
        ("members change", |it| it.settled = false),
        ("an entry is not applied", |it| it.last = entry(10)),
        ("another entry was applied", |it| {
            it.applied.epoch = LeaderEpoch(2);
        }),
        ("it lacks what it had", |it| it.whole = false),
        ("a producer waits", |it| it.awaited = true),
        ("a voter lacks something", |it| it.behind = 1),
        ("it has no members yet", |it| {
            (it.last, it.applied) = (entry(0), entry(0));
        }),
    ];
    for (why, change) in busy {
        let mut standing = idle();
        change(&mut standing);
        assert!(!may_sleep(&standing), "{why}");
    }
}
