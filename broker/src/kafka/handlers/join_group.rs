//! JoinGroup: a member enters the next generation of its group. The reply comes when that begins.

use tidelog_protocol::StrBytes;
use tidelog_protocol::limits;
use tidelog_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use tidelog_protocol::messages::join_group_response::JoinGroupResponseMember;
use tidelog_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use uuid::Uuid;

use crate::coordinator::group::{
    ClientIdentity, Event, GroupError, Join, JoinReply, Joined, JoinedMember, MemberBudget,
    MemberCharge, MemberId, Protocol, Reply, ReplyToken, Timeouts,
};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{HandlerError, group_fields as fields};

/// Versions before this one have no rebalance time-out; the session time-out stands in.
const REBALANCE_TIMEOUT_VERSION_MIN: i16 = 1;
/// From this version on, newcomers are given an id first.
const KNOWN_MEMBER_VERSION_MIN: i16 = 4;
/// From this version on, `protocol_name` may be null.
const NULL_PROTOCOL_VERSION_MIN: i16 = 7;
/// From this version on, the leader may be told not to assign.
const SKIP_ASSIGNMENT_VERSION_MIN: i16 = 9;
/// Part of a client id that goes into member ids: they have to fit Kafka's records, and to be read.
const MEMBER_ID_PREFIX_MAX: usize = 255;

/// Joins.
pub async fn handle(
    cx: &RequestContext,
    request: JoinGroupRequest,
) -> Result<JoinGroupResponse, HandlerError> {
    let member = request.member_id.clone();
    let group = match fields::member_group_id(&request.group_id) {
        Ok(group) => group,
        Err(error) => return Ok(refused(cx, error, member)),
    };
    let charge = match admit(cx.broker.groups.members(), &request) {
        Ok(charge) => charge,
        Err(error) => return Ok(refused(cx, error, member)),
    };
    let join = |token| Event::Join(join_of(cx, &request, token, charge));
    Ok(match cx.broker.groups.request(group, join).await {
        Ok(Reply::Join(JoinReply::Joined(joined))) => accepted(cx, *joined),
        Ok(Reply::Join(JoinReply::Refused { error, member })) => refused(
            cx,
            error,
            member.map(|id| fields::wire(&id.0)).unwrap_or_default(),
        ),
        Ok(_) => refused(cx, GroupError::StorageFailed, member),
        Err(error) => refused(cx, error, member),
    })
}

/// Charges what the member would hold, before anything of it is copied.
fn admit(budget: &MemberBudget, request: &JoinGroupRequest) -> Result<MemberCharge, GroupError> {
    if request.protocols.len() > limits::GROUP_PROTOCOLS_MAX {
        return Err(GroupError::InconsistentProtocol);
    }
    let protocols = request.protocols.iter();
    let bytes: usize = protocols.map(|p| p.name.len() + p.metadata.len()).sum();
    if bytes > limits::GROUP_MEMBER_BYTES_MAX {
        return Err(GroupError::RecordTooLarge);
    }
    let ids = [
        request.group_id.len(),
        request.protocol_type.len(),
        request.group_instance_id.as_ref().map_or(0, |id| id.len()),
    ];
    let bytes = bytes + ids.iter().sum::<usize>() + limits::GROUP_MEMBER_BYTES;
    let charge = if request.member_id.is_empty() {
        budget.charge_newcomer(bytes)
    } else {
        budget.charge_member(bytes)
    };
    charge.ok_or(GroupError::MaxSizeReached)
}

fn join_of(
    cx: &RequestContext,
    request: &JoinGroupRequest,
    token: ReplyToken,
    charge: MemberCharge,
) -> Join {
    let session_ms = u32::try_from(request.session_timeout_ms).unwrap_or(0);
    let rebalance_ms = if cx.version() >= REBALANCE_TIMEOUT_VERSION_MIN {
        u32::try_from(request.rebalance_timeout_ms).unwrap_or(0)
    } else {
        session_ms
    };
    let protocol = |protocol: &JoinGroupRequestProtocol| Protocol {
        name: fields::text(&protocol.name),
        metadata: fields::bytes(&protocol.metadata),
    };
    Join {
        token,
        member: fields::member_id(&request.member_id),
        instance: fields::instance_id(request.group_instance_id.as_ref()),
        fresh_id: fresh_id(cx, request.group_instance_id.as_ref()),
        client: ClientIdentity {
            id: cx.client_id().into(),
            host: format!("/{}", cx.connection.peer.ip()).into(),
        },
        timeouts: Timeouts {
            session_ms,
            rebalance_ms,
        },
        protocol_type: fields::text(&request.protocol_type),
        protocols: request.protocols.iter().map(protocol).collect(),
        charge,
        requires_known_member: cx.version() >= KNOWN_MEMBER_VERSION_MIN,
        knows_skip_assignment: cx.version() >= SKIP_ASSIGNMENT_VERSION_MIN,
    }
}

/// An id nobody has, that tells a person who it is: the instance or the client in front.
fn fresh_id(cx: &RequestContext, instance: Option<&StrBytes>) -> MemberId {
    let prefix = instance.map_or(cx.client_id(), |instance| instance.as_str());
    let end = (0..=MEMBER_ID_PREFIX_MAX.min(prefix.len()))
        .rev()
        .find(|at| prefix.is_char_boundary(*at));
    let prefix = prefix.get(..end.unwrap_or(0)).unwrap_or_default();
    MemberId::from(format!("{prefix}-{}", Uuid::new_v4()).as_str())
}

fn accepted(cx: &RequestContext, joined: Joined) -> JoinGroupResponse {
    let member = |member: JoinedMember| {
        JoinGroupResponseMember::default()
            .with_member_id(fields::wire(&member.member.0))
            .with_group_instance_id(member.instance.map(|instance| fields::wire(&instance.0)))
            .with_metadata(member.metadata)
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation.0)
        .with_protocol_type(joined.protocol_type.map(|name| fields::wire(&name)))
        .with_protocol_name(protocol_name(
            cx,
            joined.protocol.map(|name| fields::wire(&name)),
        ))
        .with_leader(
            joined
                .leader
                .map(|leader| fields::wire(&leader.0))
                .unwrap_or_default(),
        )
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(fields::wire(&joined.member.0))
        .with_members(joined.members.into_iter().map(member).collect())
}

fn refused(cx: &RequestContext, error: GroupError, member: StrBytes) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(error.code().code())
        .with_protocol_name(protocol_name(cx, None))
        .with_member_id(member)
}

fn protocol_name(cx: &RequestContext, name: Option<StrBytes>) -> Option<StrBytes> {
    if cx.version() >= NULL_PROTOCOL_VERSION_MIN {
        name
    } else {
        Some(name.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn join_of(protocols: usize, metadata_bytes: usize) -> JoinGroupRequest {
        let protocol = |number: usize| {
            JoinGroupRequestProtocol::default()
                .with_name(StrBytes::from_string(format!("p{number}")))
                .with_metadata(Bytes::from(vec![0; metadata_bytes]))
        };
        JoinGroupRequest::default().with_protocols((0..protocols).map(protocol).collect())
    }

    #[test]
    fn members_with_too_many_or_too_large_protocols_are_refused() {
        let budget = MemberBudget::new(limits::GROUP_MEMBERS_BYTES_MAX);
        let refusal = |request| admit(&budget, &request).err();
        let most = limits::GROUP_PROTOCOLS_MAX;
        assert_eq!(refusal(join_of(most, 10)), None);
        assert_eq!(
            refusal(join_of(most + 1, 10)),
            Some(GroupError::InconsistentProtocol)
        );
        let half = limits::GROUP_MEMBER_BYTES_MAX / 2;
        assert_eq!(refusal(join_of(2, half)), Some(GroupError::RecordTooLarge));
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn members_are_bounded_by_what_all_of_them_hold() {
        let budget = MemberBudget::new(40_000);
        let request = join_of(1, 10_000);
        let newcomers: Vec<_> = std::iter::from_fn(|| admit(&budget, &request).ok()).collect();
        assert_eq!(newcomers.len(), 2);
        let known = request
            .clone()
            .with_member_id(StrBytes::from_static_str("m"));
        let back = admit(&budget, &known);
        assert!(
            back.is_ok(),
            "who comes back finds room that is kept for it"
        );
        assert_eq!(
            admit(&budget, &known).err(),
            Some(GroupError::MaxSizeReached)
        );
        drop((newcomers, back));
        assert_eq!(budget.used_bytes(), 0);
    }
}
