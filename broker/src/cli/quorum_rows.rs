//! The group that keeps the cluster's metadata, as rows of a table and as JSON.

use serde_json::{Value, json};
use tidelog_client::{QuorumDescription, QuorumReplica};

use super::table::Table;

/// The group in one line.
pub(super) fn line(quorum: &QuorumDescription) -> String {
    let leader = match quorum.leader {
        Some(leader) => format!("leader {leader}"),
        None => "no leader".to_owned(),
    };
    format!(
        "{leader}, epoch {}, high watermark {}",
        quorum.leader_epoch, quorum.high_watermark
    )
}

/// Its members, voters first.
pub(super) fn table(quorum: &QuorumDescription) -> String {
    let mut table = Table::new(["MEMBER", "ROLE", "END", "LAG"]);
    let number = |number: Option<i64>| number.map_or(String::new(), |number| number.to_string());
    let voters = quorum.voters.iter().map(|member| (member, "voter"));
    let observers = quorum.observers.iter().map(|member| (member, "observer"));
    for (member, role) in voters.chain(observers) {
        let is_leader = Some(member.id) == quorum.leader;
        let role = if is_leader { "leader" } else { role };
        table.row([
            member.id.to_string(),
            role.to_owned(),
            number(member.log_end.map(|end| end.0)),
            number(quorum.lag(member)),
        ]);
    }
    table.render()
}

pub(super) fn json(quorum: &QuorumDescription) -> Value {
    let members = |members: &[QuorumReplica]| -> Value {
        let member = |member: &QuorumReplica| {
            json!({
                "broker": member.id.0,
                "log_end_offset": member.log_end.map(|end| end.0),
                "lag": quorum.lag(member),
                "last_fetch_ms": member.last_fetch.map(|time| time.0),
                "last_caught_up_ms": member.last_caught_up.map(|time| time.0),
            })
        };
        members.iter().map(member).collect()
    };
    json!({
        "leader": quorum.leader.map(|leader| leader.0),
        "leader_epoch": quorum.leader_epoch.0,
        "high_watermark": quorum.high_watermark.0,
        "voters": members(&quorum.voters),
        "observers": members(&quorum.observers),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_client::{BrokerId, LeaderEpoch, Offset};

    #[test]
    fn members_are_shown_with_their_roles_and_lag() {
        let member = |id: i32, end: Option<i64>| QuorumReplica {
            id: BrokerId(id),
            log_end: end.map(Offset),
            last_fetch: None,
            last_caught_up: None,
        };
        let quorum = QuorumDescription {
            leader: Some(BrokerId(1)),
            leader_epoch: LeaderEpoch(4),
            high_watermark: Offset(120),
            voters: vec![member(1, Some(120)), member(2, Some(118))],
            observers: vec![member(4, None)],
        };
        assert_eq!(line(&quorum), "leader 1, epoch 4, high watermark 120");
        assert_eq!(
            table(&quorum),
            "MEMBER  ROLE      END  LAG\n\
             1       leader    120  0\n\
             2       voter     118  2\n\
             4       observer  -    -\n"
        );
        assert_eq!(json(&quorum)["voters"][1]["lag"], 2);
        assert_eq!(json(&quorum)["observers"][0]["lag"], Value::Null);
    }
}
