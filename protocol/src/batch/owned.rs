//! Records with absolute offsets and times, for those who keep them: consumers and the readers of internal
//! topics. Keys and values share the batch's memory (or that of its decompressed form).

use bytes::Bytes;

use super::RecordBatch;
use super::record::RecordIter;
use super::scratch::RecordsError;
use crate::compression::Compression;
use crate::limits;
use crate::types::{Offset, TimestampMs};

/// One record of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset in the partition.
    pub offset: Offset,
    /// Producer's time, or the broker's when the batch says so.
    pub timestamp: TimestampMs,
    /// Key; `None` is null.
    pub key: Option<Bytes>,
    /// Value; `None` is null.
    pub value: Option<Bytes>,
    /// Headers in order, duplicates included.
    pub headers: Vec<Header>,
}

/// One header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Key; UTF-8 by agreement, unchecked.
    pub key: Bytes,
    /// Value; `None` is null.
    pub value: Option<Bytes>,
}

impl RecordBatch {
    /// All records of the batch. The checksum is not looked at: see [`RecordBatch::checksum_matches`].
    pub fn read_records(&self) -> Result<Vec<Record>, RecordsError> {
        let codec = self
            .compression()
            .ok_or(RecordsError::UnknownCodec(self.attributes() & 7))?;
        let section = if codec == Compression::None {
            self.records_bytes().clone()
        } else {
            let mut inflated = Vec::new();
            codec.decompress(
                self.records_bytes(),
                limits::DECOMPRESSED_BYTES_MAX,
                &mut inflated,
            )?;
            Bytes::from(inflated)
        };
        let mut records = Vec::new();
        for view in RecordIter::new(&section, self.record_count()) {
            let view = view?;
            let own = |bytes: &[u8]| section.slice_ref(bytes);
            records.push(Record {
                offset: Offset(
                    self.base_offset()
                        .0
                        .saturating_add(i64::from(view.offset_delta)),
                ),
                timestamp: self.record_timestamp(view.timestamp_delta),
                key: view.key.map(own),
                value: view.value.map(own),
                headers: view
                    .headers()
                    .map(|header| Header {
                        key: own(header.key),
                        value: header.value.map(own),
                    })
                    .collect(),
            });
        }
        Ok(records)
    }

    /// Absolute time of a record of this batch.
    pub fn record_timestamp(&self, timestamp_delta: i64) -> TimestampMs {
        if self.is_log_append_time() {
            self.max_timestamp()
        } else {
            TimestampMs(self.base_timestamp().0.wrapping_add(timestamp_delta))
        }
    }
}
