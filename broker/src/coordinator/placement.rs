//! Which partition of `__consumer_offsets` holds a group. Kafka's rule; it must never change.

use tidelog_protocol::types::PartitionIndex;

use super::group::GroupId;

/// The group's partition of `count`: Java's `String.hashCode`, its sign bit cleared, modulo the count. `None` if
/// there are no partitions.
pub(super) fn partition_of(group: &GroupId, count: usize) -> Option<PartitionIndex> {
    let hash = group.0.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    let count = i32::try_from(count).ok().filter(|count| *count > 0)?;
    Some(PartitionIndex((hash & i32::MAX) % count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_java() {
        // Values of `(s.hashCode() & 0x7fffffff) % 50`.
        for (group, place) in [
            ("", 0),
            ("a", 47),
            ("group", 47),
            ("console-consumer-12345", 6),
            ("polygenelubricants", 0),
            ("\u{1d11e}", 44),
        ] {
            assert_eq!(
                partition_of(&GroupId::from(group), 50),
                Some(PartitionIndex(place)),
                "{group}"
            );
        }
        assert_eq!(partition_of(&GroupId::from("a"), 0), None);
    }
}
