//! From a line of input to a record.

use tidelog_client::{PartitionIndex, ProducerRecord, TopicName};

/// How lines are read, and what all records have in common.
#[derive(Clone, Debug)]
pub(super) struct RecordLines {
    pub(super) topic: TopicName,
    pub(super) partition: Option<PartitionIndex>,
    /// The key of records whose line has none.
    pub(super) key: Option<String>,
    pub(super) key_separator: Option<String>,
    pub(super) null_value: Option<String>,
    pub(super) headers: Vec<(String, String)>,
}

impl RecordLines {
    /// A record from a line without its end. The bytes need not be text.
    pub(super) fn read(&self, line: &[u8]) -> Result<ProducerRecord, String> {
        let Some(separator) = &self.key_separator else {
            return Ok(self.record(line.to_vec()));
        };
        let at = find(line, separator.as_bytes())
            .ok_or_else(|| format!("no key separator '{separator}' in it"))?;
        let (key, rest) = line.split_at(at);
        let value = rest.get(separator.len()..).unwrap_or_default();
        Ok(self.record(value.to_vec()).key(key.to_vec()))
    }

    /// A record with this value.
    pub(super) fn record(&self, value: Vec<u8>) -> ProducerRecord {
        let mut record = ProducerRecord::new(self.topic.clone());
        record.partition = self.partition;
        if let Some(key) = &self.key {
            record = record.key(key.clone());
        }
        let is_null = self
            .null_value
            .as_ref()
            .is_some_and(|marker| marker.as_bytes() == value);
        if !is_null {
            record = record.value(value);
        }
        for (name, value) in &self.headers {
            record = record.header(name.clone(), value.clone());
        }
        record
    }
}

/// The line without its end, be it Unix's or Windows'.
pub(super) fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn find(line: &[u8], separator: &[u8]) -> Option<usize> {
    line.windows(separator.len())
        .position(|window| window == separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(separator: Option<&str>) -> RecordLines {
        RecordLines {
            topic: "t".into(),
            partition: Some(PartitionIndex(2)),
            key: None,
            key_separator: separator.map(str::to_owned),
            null_value: Some("NULL".to_owned()),
            headers: vec![("h".to_owned(), "1".to_owned())],
        }
    }

    #[test]
    fn a_line_is_a_value() {
        let record = lines(None).read(b"a:b").unwrap();
        assert_eq!((record.key, record.value), (None, Some("a:b".into())));
        assert_eq!(record.partition, Some(PartitionIndex(2)));
        assert_eq!(record.headers, [("h".to_owned(), Some("1".into()))]);
    }

    #[test]
    fn the_first_separator_ends_the_key() {
        let record = lines(Some("::")).read(b"k::v::w").unwrap();
        assert_eq!(
            (record.key, record.value),
            (Some("k".into()), Some("v::w".into()))
        );
        let record = lines(Some("::")).read(b"::").unwrap();
        assert_eq!(
            (record.key, record.value),
            (Some("".into()), Some("".into()))
        );
        let error = lines(Some("::")).read(b"k:v").unwrap_err();
        assert_eq!(error, "no key separator '::' in it");
    }

    #[test]
    fn the_marker_is_a_null_value() {
        let record = lines(Some(":")).read(b"k:NULL").unwrap();
        assert_eq!((record.key, record.value), (Some("k".into()), None));
    }

    #[test]
    fn line_ends_of_both_kinds_are_cut() {
        assert_eq!(trim_end(b"a\r\n"), b"a");
        assert_eq!(trim_end(b"a\n"), b"a");
        assert_eq!(trim_end(b"a\n\n"), b"a\n");
        assert_eq!(trim_end(b""), b"");
    }
}
