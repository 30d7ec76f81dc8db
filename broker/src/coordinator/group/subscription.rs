//! The topics in a consumer's subscription, the one thing in the members' opaque bytes that the coordinator reads.
//!
//! Only for expiry and OffsetDelete. The bytes are a client's: whatever cannot be read means "not known".

use std::collections::HashSet;

use tidelog_protocol::types::TopicName;

use super::state::Group;

/// Topics that all members together subscribe to; `None` if the group does not speak the consumer protocol or a
/// subscription cannot be read.
pub(super) fn subscribed_topics(group: &Group) -> Option<HashSet<TopicName>> {
    if !group.uses_consumer_protocol() {
        return None;
    }
    if group.members.is_empty() {
        return Some(HashSet::new());
    }
    let protocol = group.protocol.as_deref()?;
    let mut topics = HashSet::new();
    for member in group.members.values() {
        topics.extend(parse(&member.metadata(protocol))?);
    }
    Some(topics)
}

/// Version (i16), then an array of strings; later fields are of no interest and the array has not changed since
/// version 0.
fn parse(bytes: &[u8]) -> Option<Vec<TopicName>> {
    let (version, rest) = take_i16(bytes)?;
    if version < 0 {
        return None;
    }
    let (count, mut rest) = rest
        .split_first_chunk::<4>()
        .map(|(n, rest)| (i32::from_be_bytes(*n), rest))?;
    let mut topics = Vec::new();
    for _ in 0..count.max(0) {
        let (length, after) = take_i16(rest)?;
        let (name, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        topics.push(TopicName::from(std::str::from_utf8(name).ok()?));
        rest = after;
    }
    Some(topics)
}

fn take_i16(bytes: &[u8]) -> Option<(i16, &[u8])> {
    bytes
        .split_first_chunk::<2>()
        .map(|(n, rest)| (i16::from_be_bytes(*n), rest))
}

#[cfg(test)]
mod tests {
    use tidelog_tests::hostile::Codec;

    use super::*;

    #[test]
    fn mutated_subscriptions() {
        let codec = Codec {
            name: "subscription",
            decode: parse,
            encode: |topics: &Vec<TopicName>| {
                let mut bytes = vec![0, 3];
                bytes.extend_from_slice(&(topics.len() as u32).to_be_bytes());
                for topic in topics {
                    bytes.extend_from_slice(&(topic.as_str().len() as u16).to_be_bytes());
                    bytes.extend_from_slice(topic.as_str().as_bytes());
                }
                bytes
            },
            reseal: |_: &mut Vec<u8>| {},
        };
        let valid = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff".to_vec();
        codec.check(20_000, &[valid, b"\0\0\0\0\0\0".to_vec()]);
    }

    #[test]
    fn topics_of_a_subscription_are_read_and_later_fields_ignored() {
        let bytes = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff";
        assert_eq!(
            parse(bytes),
            Some(vec![TopicName::from("a"), TopicName::from("bc")])
        );
    }

    #[test]
    fn bytes_that_are_no_subscription_are_not_believed() {
        for bytes in [
            &b""[..],
            b"\0",
            b"\0\x01\0\0",
            b"\0\0\x7f\xff\xff\xff",
            b"\0\0\0\0\0\x01\0\x05ab",
            b"\xff\xff\0\0\0\0",
        ] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
        assert_eq!(parse(b"\0\0\0\0\0\x01\0\x01\xff"), None, "not UTF-8");
    }
}
