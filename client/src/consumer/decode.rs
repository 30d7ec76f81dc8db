//! From fetched bytes to records.

use bytes::Bytes;
use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::types::{Offset, TopicPartition};

use super::{ConsumedRecord, RecordHeader};
use crate::error::Error;

/// Adds the records at `from` and after it, and yields the offset after the last batch that was read, with what is wrong
/// with the one behind it. A reply begins with the batch that holds `from`, whose first records may lie before it;
/// control records are not for consumers.
pub(super) fn decode(
    of: &TopicPartition,
    from: Offset,
    bytes: Bytes,
    records: &mut Vec<ConsumedRecord>,
) -> (Offset, Result<(), Error>) {
    let mut next = from;
    let read = decode_from(of, &mut next, bytes, records);
    (next, read)
}

fn decode_from(
    of: &TopicPartition,
    next: &mut Offset,
    bytes: Bytes,
    records: &mut Vec<ConsumedRecord>,
) -> Result<(), Error> {
    let from = *next;
    let damaged = |at: Offset, reason: &dyn std::fmt::Display| {
        Error::Invalid(format!("{of} is damaged at offset {at}: {reason}"))
    };
    for batch in RecordBatch::split_all(bytes).map_err(|error| damaged(from, &error))? {
        let base = batch.base_offset();
        if !batch.checksum_matches() {
            return Err(damaged(base, &"checksum does not match"));
        }
        // A batch that ends before what was asked for would send the reader back.
        if batch.next_offset() <= *next {
            continue;
        }
        if !batch.is_control() {
            let read = batch
                .read_records()
                .map_err(|error| damaged(base, &error))?;
            records.extend(
                read.into_iter()
                    .filter(|record| record.offset >= from)
                    .map(|record| ConsumedRecord {
                        partition: of.clone(),
                        offset: record.offset,
                        timestamp: record.timestamp,
                        key: record.key,
                        value: record.value,
                        headers: record
                            .headers
                            .into_iter()
                            .map(|header| RecordHeader {
                                key: header.key,
                                value: header.value,
                            })
                            .collect(),
                    }),
            );
        }
        *next = batch.next_offset();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_protocol::batch::{BatchBuilder, NewRecord};
    use tidelog_protocol::compression::Compression;
    use tidelog_protocol::types::{LeaderEpoch, PartitionIndex};

    fn batch(base: i64, values: &[&str], control: bool) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::Lz4).at(Offset(base), LeaderEpoch(0));
        if control {
            builder = builder.control();
        }
        for value in values {
            let record = NewRecord {
                value: Some(value.as_bytes()),
                ..NewRecord::default()
            };
            builder.push(record).unwrap();
        }
        builder.build().unwrap().to_bytes().to_vec()
    }

    fn partition() -> TopicPartition {
        TopicPartition {
            topic: "t".into(),
            partition: PartitionIndex(3),
        }
    }

    #[test]
    fn records_before_the_position_and_control_records_are_left_out() {
        let bytes = [
            batch(10, &["a", "b", "c"], false),
            batch(13, &["marker"], true),
            batch(14, &["d"], false),
            batch(15, &["marker"], true),
        ]
        .concat();
        let mut records = Vec::new();
        let (next, read) = decode(&partition(), Offset(11), bytes.into(), &mut records);
        read.unwrap();
        assert_eq!(next, Offset(16));
        let seen: Vec<_> = records
            .iter()
            .map(|record| (record.offset.0, record.value.as_deref().unwrap()))
            .collect();
        assert_eq!(seen, [(11, &b"b"[..]), (12, b"c"), (14, b"d")]);
    }

    #[test]
    fn damage_is_an_error_that_names_partition_and_offset() {
        let mut bytes = [batch(7, &["a"], false), batch(8, &["b"], false)].concat();
        *bytes.last_mut().unwrap() ^= 1;
        let mut records = Vec::new();
        let (next, read) = decode(&partition(), Offset(7), bytes.into(), &mut records);
        // What is good is not read again.
        assert_eq!((next, records.len()), (Offset(8), 1));
        assert_eq!(
            read.unwrap_err().to_string(),
            "t-3 is damaged at offset 8: checksum does not match"
        );
    }

    #[test]
    fn nothing_fetched_stays_where_it_was() {
        let (next, read) = decode(&partition(), Offset(7), Bytes::new(), &mut Vec::new());
        read.unwrap();
        assert_eq!(next, Offset(7));
    }
}
