//! Records inside a batch, walked in place: a view borrows the (decompressed) records section and owns nothing.
//!
//! Never panics, whatever the bytes; accepts what Kafka's `DefaultRecord` accepts (negative lengths are null,
//! a record must end exactly where its length says). Headers keep order and duplicates.

use crate::{limits, varint};

/// Why a records section is not what its batch header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFormatError {
    /// The section ends before the declared number of records.
    #[error("records end before record {index} of the batch is complete")]
    Cut {
        /// Position of the record in the batch.
        index: usize,
    },
    /// A field of a record runs over its end, or the record is longer than its fields.
    #[error("record {index} of the batch is malformed")]
    Malformed {
        /// Position of the record in the batch.
        index: usize,
    },
    /// Bytes are left after the declared number of records.
    #[error("{bytes} bytes left after the last record of the batch")]
    Trailing {
        /// How many bytes.
        bytes: usize,
    },
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Offset, counted from the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp, counted from the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is null (a tombstone on compacted topics).
    pub value: Option<&'a [u8]>,
    header_count: usize,
    /// The encoded headers, checked when the view was made.
    headers: &'a [u8],
}

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// Key as sent; clients are meant to send UTF-8.
    pub key: &'a [u8],
    /// Value; `None` is null.
    pub value: Option<&'a [u8]>,
}

/// Iterator over the records of a section; ends after the first error.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    index: usize,
    count: usize,
    failed: bool,
}

/// Iterator over the headers of a record, in order, duplicates included.
#[derive(Clone, Debug)]
pub struct HeaderIter<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> RecordIter<'a> {
    /// Walks `count` records of a decompressed section. A negative count is none.
    pub fn new(section: &'a [u8], count: i32) -> Self {
        RecordIter {
            rest: section,
            index: 0,
            count: usize::try_from(count).unwrap_or(0),
            failed: false,
        }
    }

    fn read(&mut self) -> Result<RecordView<'a>, RecordFormatError> {
        let index = self.index;
        let mut rest = self.rest;
        let cut = RecordFormatError::Cut { index };
        let len = varint::read_varint(&mut rest).ok_or(cut)?;
        let len = usize::try_from(len).map_err(|_| RecordFormatError::Malformed { index })?;
        let (record, rest) = rest.split_at_checked(len).ok_or(cut)?;
        self.rest = rest;
        RecordView::parse(record).ok_or(RecordFormatError::Malformed { index })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, RecordFormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.index == self.count {
            self.failed = true;
            let bytes = self.rest.len();
            return (bytes > 0).then_some(Err(RecordFormatError::Trailing { bytes }));
        }
        let record = self.read();
        self.index += 1;
        self.failed = record.is_err();
        Some(record)
    }
}

impl<'a> RecordView<'a> {
    /// Parses what follows a record's length; `None` unless all of it is one record.
    fn parse(mut record: &'a [u8]) -> Option<RecordView<'a>> {
        let (_attributes, rest) = record.split_first()?;
        record = rest;
        let timestamp_delta = varint::read_varlong(&mut record)?;
        let offset_delta = varint::read_varint(&mut record)?;
        let key = read_nullable(&mut record)?;
        let value = read_nullable(&mut record)?;
        let header_count = usize::try_from(varint::read_varint(&mut record)?).ok()?;
        if header_count > limits::RECORD_HEADERS_MAX {
            return None;
        }
        let headers = record;
        for _ in 0..header_count {
            read_header(&mut record)?;
        }
        record.is_empty().then_some(RecordView {
            offset_delta,
            timestamp_delta,
            key,
            value,
            header_count,
            headers,
        })
    }

    /// The headers in order, duplicates included.
    pub fn headers(&self) -> HeaderIter<'a> {
        HeaderIter {
            rest: self.headers,
            left: self.header_count,
        }
    }
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = HeaderView<'a>;

    fn next(&mut self) -> Option<HeaderView<'a>> {
        self.left = self.left.checked_sub(1)?;
        read_header(&mut self.rest)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for HeaderIter<'_> {}

fn read_header<'a>(bytes: &mut &'a [u8]) -> Option<HeaderView<'a>> {
    let key = read_nullable(bytes)??;
    let value = read_nullable(bytes)?;
    Some(HeaderView { key, value })
}

/// Outer `None`: cut. Inner `None`: null.
#[expect(
    clippy::option_option,
    reason = "a missing field and a null field are different things"
)]
fn read_nullable<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = varint::read_varint(bytes)?;
    let Ok(len) = usize::try_from(len) else {
        return Some(None);
    };
    let (field, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(Some(field))
}
