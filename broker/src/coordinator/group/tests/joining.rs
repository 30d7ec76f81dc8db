//! JoinGroup, heartbeats, leaving and time-outs of dynamic members.

use std::sync::Arc;

use super::super::*;
use super::fixture::{Fixture, protocol, settings, subscription};

#[test]
fn rule_36_newcomer_is_sent_back_with_an_id_and_held_for_one_session() {
    let mut f = Fixture::new(settings());
    let token = f.join("");
    let Reply::Join(JoinReply::Refused { error, member }) = f.take(token) else {
        panic!()
    };
    assert_eq!(error, GroupError::MemberIdRequired);
    let id = member.expect("an id is given");
    assert!(f.group.exists());
    f.advance(10_000);
    let late = f.join(&id.0);
    assert_eq!(f.refused(late), GroupError::UnknownMember);
    assert!(
        f.group.is_vacant(),
        "a pending member that never came leaves nothing"
    );
}

#[test]
fn old_clients_enter_without_the_round_trip() {
    let mut f = Fixture::new(settings());
    let token = f.join_with("", |j| j.requires_known_member = false);
    f.advance(0);
    let joined = f.joined(token);
    assert_eq!(
        (joined.generation, joined.members.len()),
        (Generation(1), 1)
    );
}

#[test]
fn rule_35_initial_delay_is_extended_by_newcomers_up_to_the_rebalance_timeout() {
    let mut f = Fixture::new(GroupSettings {
        initial_rebalance_delay_ms: 3_000,
        ..settings()
    });
    let quick = |j: &mut Join| j.timeouts.rebalance_ms = 7_000;
    let mut tokens = Vec::new();
    // A newcomer every two seconds; 3 s, then two extensions of 3 s and 1 s use up the 7 s.
    for _ in 0..4 {
        let id = {
            let first = f.join_with("", quick);
            let Reply::Join(JoinReply::Refused {
                member: Some(id), ..
            }) = f.take(first)
            else {
                panic!()
            };
            id
        };
        tokens.push(f.join_with(&id.0, quick));
        f.advance(1_700);
    }
    assert_eq!(f.now_ms, 1_000 + 6_800);
    assert!(tokens.iter().all(|t| f.is_parked(*t)));
    f.advance(200);
    for token in tokens {
        let joined = f.joined(token);
        assert_eq!(joined.generation, Generation(1));
    }
}

#[test]
fn initial_delay_ends_when_nobody_came_during_it() {
    let mut f = Fixture::new(GroupSettings {
        initial_rebalance_delay_ms: 3_000,
        ..settings()
    });
    let (_, token) = f.enter();
    f.advance(2_999);
    assert!(f.is_parked(token));
    f.advance(1);
    assert_eq!(f.joined(token).members.len(), 1);
}

#[test]
fn only_the_leader_gets_the_member_list() {
    let (mut f, a, b, _) = Fixture::stable_pair(settings());
    let (rejoin_a, rejoin_b) = (f.join(&a.0), f.join(&b.0));
    let (for_a, for_b) = (f.joined(rejoin_a), f.joined(rejoin_b));
    assert_eq!(for_a.leader, Some(a));
    assert_eq!((for_a.members.len(), for_b.members.len()), (2, 0));
    assert_eq!(for_a.leader, for_b.leader);
    assert_eq!(for_a.members[0].metadata, subscription(&["t"]));
}

#[test]
fn laggards_are_removed_at_the_rebalance_timeout() {
    let (mut f, a, b, _) = Fixture::stable_pair(settings());
    let rejoin_a = f.join(&a.0);
    assert!(f.is_parked(rejoin_a));
    // `b` keeps its session alive by heartbeats but does not rejoin.
    for _ in 0..12 {
        f.advance(4_900);
        assert_eq!(
            f.heartbeat(&b, Generation(2)),
            Err(GroupError::RebalanceInProgress)
        );
    }
    f.advance(1_200);
    let joined = f.joined(rejoin_a);
    assert_eq!(
        (joined.members.len(), joined.generation),
        (1, Generation(3))
    );
    assert_eq!(
        f.heartbeat(&b, Generation(3)),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn silent_member_is_removed_and_the_others_rebalance() {
    let (mut f, a, b, generation) = Fixture::stable_pair(settings());
    f.advance(6_000);
    assert_eq!(f.heartbeat(&a, generation), Ok(()));
    f.advance(4_500);
    assert_eq!(f.heartbeat(&b, generation), Err(GroupError::UnknownMember));
    assert_eq!(
        f.heartbeat(&a, generation),
        Err(GroupError::RebalanceInProgress)
    );
    let rejoin = f.join(&a.0);
    assert_eq!(f.joined(rejoin).members.len(), 1);
}

#[test]
fn parked_join_outlives_session_and_request_timeouts() {
    let (mut f, a, b, _) = Fixture::stable_pair(settings());
    let rejoin_a = f.join(&a.0);
    for _ in 0..5 {
        f.advance(9_000);
        assert_eq!(
            f.heartbeat(&b, Generation(2)),
            Err(GroupError::RebalanceInProgress)
        );
    }
    assert!(f.is_parked(rejoin_a));
    let rejoin_b = f.join(&b.0);
    assert_eq!(f.joined(rejoin_a).generation, f.joined(rejoin_b).generation);
}

#[test]
fn newcomer_that_vanished_in_its_first_join_is_removed_though_it_has_no_session() {
    let (mut f, a, b, generation) = Fixture::stable_pair(GroupSettings {
        new_member_join_timeout_ms: 30_000,
        ..settings()
    });
    let (_, parked) = f.enter();
    for _ in 0..5 {
        f.advance(5_999);
        for member in [&a, &b] {
            assert_eq!(
                f.heartbeat(member, generation),
                Err(GroupError::RebalanceInProgress)
            );
        }
    }
    assert!(f.is_parked(parked), "its session of 10 s does not count");
    f.advance(5);
    assert_eq!(f.refused(parked), GroupError::UnknownMember);
}

#[test]
fn join_repeated_while_parked_is_answered_once_each() {
    let (mut f, a, b, _) = Fixture::stable_pair(settings());
    let (first, second) = (f.join(&a.0), f.join(&a.0));
    assert_eq!(f.refused(first), GroupError::RebalanceInProgress);
    let rejoin_b = f.join(&b.0);
    assert_eq!(f.joined(second).generation, f.joined(rejoin_b).generation);
}

#[test]
fn follower_that_rejoins_unchanged_gets_the_current_generation_and_leader_forces_a_new_one() {
    let (mut f, a, b, generation) = Fixture::stable_pair(settings());
    let again = f.join(&b.0);
    assert_eq!(f.joined(again).generation, generation);
    assert_eq!(f.group.state(), GroupState::Stable);
    let leader = f.join(&a.0);
    assert!(f.is_parked(leader));
    assert_eq!(f.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn follower_with_a_new_subscription_forces_a_rebalance() {
    let (mut f, a, b, generation) = Fixture::stable_pair(settings());
    let changed = f.join_with(&b.0, |j| {
        j.protocols = vec![protocol("range", &subscription(&["t", "u"]))]
    });
    assert!(f.is_parked(changed));
    assert_eq!(
        f.heartbeat(&a, generation),
        Err(GroupError::RebalanceInProgress)
    );
}

#[test]
fn lost_join_reply_is_repeated_while_the_group_completes() {
    let mut f = Fixture::new(settings());
    let (a, token) = f.enter();
    f.advance(0);
    let joined = f.joined(token);
    let again = f.join(&a.0);
    assert_eq!(f.joined(again), joined);
}

#[test]
fn protocol_is_chosen_by_votes_among_what_all_support() {
    let (mut f, a, b, _) = Fixture::stable_pair(settings());
    let (c, join_c) = f.enter();
    let _ = c;
    let order = |names: &'static [&'static str]| {
        move |j: &mut Join| j.protocols = names.iter().map(|n| protocol(n, n.as_bytes())).collect()
    };
    let rejoin_a = f.join_with(&a.0, order(&["sticky", "range"]));
    let rejoin_b = f.join_with(&b.0, order(&["sticky", "range"]));
    // `c` only knows "range", so the majority for "sticky" does not count.
    assert_eq!(f.joined(join_c).protocol.as_deref(), Some("range"));
    let for_a = f.joined(rejoin_a);
    assert_eq!(for_a.protocol.as_deref(), Some("range"));
    assert_eq!(
        for_a
            .members
            .iter()
            .find(|m| m.member == b)
            .expect("b is in")
            .metadata,
        "range"
    );
    f.joined(rejoin_b);
}

#[test]
fn protocols_that_do_not_fit_are_refused() {
    let (mut f, ..) = Fixture::stable_pair(settings());
    let token = f.join_with("", |j| j.protocol_type = Arc::from("connect"));
    assert_eq!(f.refused(token), GroupError::InconsistentProtocol);
    let token = f.join_with("", |j| j.protocols = vec![protocol("other", b"")]);
    assert_eq!(f.refused(token), GroupError::InconsistentProtocol);
    let mut f = Fixture::new(settings());
    let token = f.join_with("", |j| j.protocols.clear());
    assert_eq!(f.refused(token), GroupError::InconsistentProtocol);
    let token = f.join_with("", |j| j.protocol_type = Arc::from(""));
    assert_eq!(f.refused(token), GroupError::InconsistentProtocol);
    assert!(f.group.is_vacant());
}

#[test]
fn long_lists_of_protocols_are_compared_in_one_pass() {
    let names = |prefix: &'static str| {
        move |j: &mut Join| {
            j.requires_known_member = false;
            j.protocols = (0..100_000)
                .map(|n| protocol(&format!("{prefix}{n}"), b""))
                .collect();
        }
    };
    let mut f = Fixture::new(settings());
    let begun = std::time::Instant::now();
    let first = f.join_with("", names("a"));
    let other = f.join_with("", names("b"));
    assert_eq!(f.refused(other), GroupError::InconsistentProtocol);
    let same = f.join_with("", names("a"));
    f.advance(0);
    assert_eq!(f.joined(first).protocol.as_deref(), Some("a0"));
    f.joined(same);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn a_protocol_that_is_named_twice_counts_once() {
    let mut f = Fixture::new(settings());
    let first = f.join_with("", |j| {
        j.requires_known_member = false;
        j.protocols = vec![protocol("range", b"1"), protocol("range", b"2")];
    });
    let other = f.join_with("", |j| {
        j.requires_known_member = false;
        j.protocols = vec![protocol("sticky", b"")];
    });
    assert_eq!(f.refused(other), GroupError::InconsistentProtocol);
    f.advance(0);
    assert_eq!(f.joined(first).members[0].metadata, "1");
}

#[test]
fn what_members_hold_is_given_back_with_them() {
    let budget = MemberBudget::new(1 << 20);
    let mut f = Fixture::new(settings());
    let charged = |j: &mut Join| j.charge = budget.charge_newcomer(10_000).expect("room");
    let pending = f.join_with("", charged);
    let Reply::Join(JoinReply::Refused {
        member: Some(id), ..
    }) = f.take(pending)
    else {
        panic!()
    };
    assert!((1..10_000).contains(&budget.used_bytes()), "only an id");
    let first = f.join_with(&id.0, charged);
    f.advance(0);
    f.joined(first);
    assert_eq!(budget.used_bytes(), 10_000);
    f.join_with(&id.0, charged);
    assert_eq!(budget.used_bytes(), 10_000, "the same member again");
    f.advance(3_600_000);
    assert_eq!(f.group.state(), GroupState::Empty);
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn session_timeout_has_bounds() {
    let mut f = Fixture::new(settings());
    for ms in [0, 5_999, 1_800_001] {
        let token = f.join_with("", |j| j.timeouts.session_ms = ms);
        assert_eq!(f.refused(token), GroupError::InvalidSessionTimeout);
    }
}

#[test]
fn full_group_refuses_newcomers_and_keeps_its_members() {
    let (mut f, a, b, _) = Fixture::stable_pair(GroupSettings {
        size_max: 2,
        ..settings()
    });
    let token = f.join("");
    assert_eq!(f.refused(token), GroupError::MaxSizeReached);
    let (rejoin_a, rejoin_b) = (f.join(&a.0), f.join(&b.0));
    assert_eq!(f.joined(rejoin_a).members.len(), 2);
    f.joined(rejoin_b);
}

#[test]
fn rule_37_heartbeats_in_each_state() {
    let mut f = Fixture::new(settings());
    let nobody = MemberId::from("nobody");
    assert_eq!(
        f.heartbeat(&nobody, Generation(0)),
        Err(GroupError::UnknownMember)
    );
    let (a, token) = f.enter();
    f.advance(0);
    let generation = f.joined(token).generation;
    assert_eq!(f.heartbeat(&a, generation), Ok(()), "completing");
    f.sync(&a, generation, &[]);
    assert_eq!(f.heartbeat(&a, generation), Ok(()), "stable");
    assert_eq!(
        f.heartbeat(&a, Generation(7)),
        Err(GroupError::IllegalGeneration)
    );
    f.enter();
    assert_eq!(
        f.heartbeat(&a, generation),
        Err(GroupError::RebalanceInProgress),
        "preparing"
    );
}

#[test]
fn last_one_out_leaves_an_empty_group_with_a_new_generation() {
    let (mut f, a, b, generation) = Fixture::stable_pair(settings());
    assert_eq!(f.leave_one(&b), Ok(()));
    assert_eq!(f.leave_one(&b), Err(GroupError::UnknownMember));
    assert_eq!(f.leave_one(&a), Ok(()));
    assert_eq!(f.group.state(), GroupState::Empty);
    let Some(GroupRecord::Metadata(Some(metadata))) = f.log.last() else {
        panic!("emptiness is stored")
    };
    assert!(metadata.members.is_empty() && metadata.generation > generation);
    let token = f.join(&a.0);
    assert_eq!(f.refused(token), GroupError::UnknownMember);
}

#[test]
fn members_leave_in_a_batch_with_one_result_each() {
    let (mut f, a, b, _) = Fixture::stable_pair(settings());
    let pending = {
        let first = f.join("");
        let Reply::Join(JoinReply::Refused {
            member: Some(id), ..
        }) = f.take(first)
        else {
            panic!()
        };
        id
    };
    let leaver = |m: &MemberId| Leaver {
        member: Some(m.clone()),
        instance: None,
    };
    let nobody = MemberId::from("nobody");
    let outcomes = f.leave(vec![
        leaver(&pending),
        leaver(&nobody),
        leaver(&a),
        leaver(&b),
    ]);
    assert_eq!(
        outcomes,
        [Ok(()), Err(GroupError::UnknownMember), Ok(()), Ok(())]
    );
    assert_eq!(f.group.state(), GroupState::Empty);
}

#[test]
fn leaving_with_a_parked_join_answers_it() {
    let (mut f, a, b, _) = Fixture::stable_pair(settings());
    let parked = f.join(&a.0);
    assert_eq!(f.leave_one(&a), Ok(()));
    assert_eq!(f.refused(parked), GroupError::UnknownMember);
    let rejoin = f.join(&b.0);
    assert_eq!(f.joined(rejoin).leader, Some(b));
}

#[test]
fn unloading_answers_everybody() {
    let (mut f, a, _, _) = Fixture::stable_pair(settings());
    let parked = f.join(&a.0);
    f.send(Event::Unload(GroupError::NotCoordinator));
    assert_eq!(f.refused(parked), GroupError::NotCoordinator);
    assert!(f.group.is_vacant());
    let token = f.join("");
    assert_eq!(f.refused(token), GroupError::CoordinatorNotAvailable);
}
