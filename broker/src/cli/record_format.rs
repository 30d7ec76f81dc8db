//! How a record is printed: its value and what else was asked for, or one JSON object.
//!
//! JSON has text only: what is not UTF-8 comes as base64, under a name that says so.

use clap::ValueEnum;
use serde_json::{Map, Value, json};
use tidelog_client::ConsumedRecord;

use super::Format;

/// What a line of text shows before the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Field {
    /// The topic's name.
    Topic,
    /// The partition's index.
    Partition,
    /// The offset.
    Offset,
    /// Milliseconds since 1970.
    Timestamp,
    /// name=value,name=value.
    Headers,
    /// The key.
    Key,
}

/// How records are printed.
#[derive(Clone, Debug)]
pub(super) struct RecordFormat {
    pub(super) format: Format,
    /// In this order, whatever the order on the command line.
    pub(super) fields: Vec<Field>,
    pub(super) separator: String,
    pub(super) null: String,
}

impl RecordFormat {
    /// Adds one line to `out`.
    pub(super) fn write(&self, record: &ConsumedRecord, out: &mut Vec<u8>) {
        match self.format {
            Format::Text => self.write_text(record, out),
            Format::Json => out.extend_from_slice(to_json(record).to_string().as_bytes()),
        }
        out.push(b'\n');
    }

    fn write_text(&self, record: &ConsumedRecord, out: &mut Vec<u8>) {
        let or_null = |bytes: Option<&[u8]>, out: &mut Vec<u8>| {
            out.extend_from_slice(bytes.unwrap_or(self.null.as_bytes()));
        };
        for field in &self.fields {
            match field {
                Field::Topic => out.extend_from_slice(record.partition.topic.as_str().as_bytes()),
                Field::Partition => {
                    out.extend_from_slice(record.partition.partition.to_string().as_bytes());
                }
                Field::Offset => out.extend_from_slice(record.offset.to_string().as_bytes()),
                Field::Timestamp => {
                    out.extend_from_slice(record.timestamp.0.to_string().as_bytes());
                }
                Field::Headers => {
                    for (at, header) in record.headers.iter().enumerate() {
                        if at > 0 {
                            out.push(b',');
                        }
                        out.extend_from_slice(&header.key);
                        out.push(b'=');
                        or_null(header.value.as_deref(), out);
                    }
                }
                Field::Key => or_null(record.key.as_deref(), out),
            }
            out.extend_from_slice(self.separator.as_bytes());
        }
        or_null(record.value.as_deref(), out);
    }
}

fn to_json(record: &ConsumedRecord) -> Value {
    let mut object = Map::new();
    object.insert("topic".to_owned(), json!(record.partition.topic.as_str()));
    object.insert("partition".to_owned(), json!(record.partition.partition.0));
    object.insert("offset".to_owned(), json!(record.offset.0));
    object.insert("timestamp".to_owned(), json!(record.timestamp.0));
    put(&mut object, "key", record.key.as_deref());
    put(&mut object, "value", record.value.as_deref());
    let headers = record.headers.iter().map(|header| {
        let mut object = Map::new();
        put(&mut object, "name", Some(&header.key));
        put(&mut object, "value", header.value.as_deref());
        Value::Object(object)
    });
    object.insert("headers".to_owned(), headers.collect());
    Value::Object(object)
}

fn put(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => object.insert(name.to_owned(), Value::Null),
        Some((_, Ok(text))) => object.insert(name.to_owned(), json!(text)),
        Some((bytes, Err(_))) => object.insert(format!("{name}_base64"), json!(base64(bytes))),
    };
}

/// RFC 4648 with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            if at <= chunk.len() {
                // Six bits are below 64.
                let letter = (bits >> (18 - 6 * at)) as usize & 63;
                text.push(char::from(LETTERS[letter]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_client::{Offset, PartitionIndex, RecordHeader, TimestampMs, TopicPartition};

    fn record() -> ConsumedRecord {
        ConsumedRecord {
            partition: TopicPartition {
                topic: "t".into(),
                partition: PartitionIndex(2),
            },
            offset: Offset(7),
            timestamp: TimestampMs(1000),
            key: Some("k".into()),
            value: None,
            headers: vec![
                RecordHeader {
                    key: "a".into(),
                    value: Some("1".into()),
                },
                RecordHeader {
                    key: "a".into(),
                    value: Some(b"\xff\x00"[..].into()),
                },
            ],
        }
    }

    fn format(format: Format, fields: &[Field]) -> String {
        let format = RecordFormat {
            format,
            fields: fields.to_vec(),
            separator: "\t".to_owned(),
            null: "null".to_owned(),
        };
        let mut out = Vec::new();
        format.write(&record(), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn text_is_the_value_and_what_was_asked_for() {
        assert_eq!(format(Format::Text, &[]), "null\n");
        assert_eq!(
            format(Format::Text, &[Field::Partition, Field::Offset, Field::Key]),
            "2\t7\tk\tnull\n"
        );
    }

    #[test]
    fn json_has_everything_and_stays_text() {
        let line: Value = serde_json::from_str(&format(Format::Json, &[])).unwrap();
        assert_eq!(
            line,
            json!({
                "topic": "t", "partition": 2, "offset": 7, "timestamp": 1000, "key": "k", "value": null,
                "headers": [
                    {"name": "a", "value": "1"},
                    {"name": "a", "value_base64": "/wA="},
                ],
            })
        );
    }

    #[test]
    fn base64_is_padded() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
