//! What a broker checks before it appends a client's batch: the rules of Kafka's `UnifiedLog` and `LogValidator`.
//!
//! Records are walked in place (or in the scratch that they are decompressed into) and not copied. The batch is
//! changed only where Kafka changes it: a wrong maximal timestamp is corrected, log append time is stamped,
//! and a topic with a codec of its own has the records recompressed. Two things are refused that Kafka lets
//! through: records whose offset deltas do not count from 0 (Kafka rewrites compressed ones and stores the
//! others as they are), and bytes after the batch (Kafka drops them). No client sends either.
//!
//! Knows nothing of producer state, epochs or offsets: those are the partition's.

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::record::{RecordIter, RecordView};
use super::scratch::{RecordsError, Scratch};
use super::{BatchError, RecordBatch};
use crate::compression::Compression;
use crate::types::{Offset, TimestampMs};
use crate::{ErrorCode, limits};

/// First Produce version whose clients and consumers know zstd.
const ZSTD_PRODUCE_VERSION: i16 = 7;

/// `message.timestamp.type` of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// Records keep the producer's time.
    CreateTime,
    /// Records get the broker's time.
    LogAppendTime,
}

/// What the topic and the request ask of a batch.
#[derive(Clone, Copy, Debug)]
pub struct ProduceRules {
    /// Version of the Produce request.
    pub api_version: i16,
    /// The broker's time.
    pub now: TimestampMs,
    /// `max.message.bytes`; 1,048,588 by default.
    pub max_message_bytes: usize,
    /// Whether `cleanup.policy` includes compact: records need keys.
    pub is_compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`; `i64::MAX` by default.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`; one hour by default.
    pub timestamp_after_max_ms: i64,
    /// `compression.type`; `None` is `producer`: keep what the batch has.
    pub compression: Option<Compression>,
}

/// A batch that may be appended.
#[derive(Clone, Debug)]
pub struct ValidatedBatch {
    /// The batch, with the topic's timestamps and codec.
    pub batch: RecordBatch,
    /// Largest timestamp among the records; the broker's time under LogAppendTime.
    pub max_timestamp: TimestampMs,
    /// Offset delta of the first record that has it; -1 when no record has a timestamp.
    pub max_timestamp_delta: i32,
    /// What the reply says as `log_append_time_ms`: [`TimestampMs::NONE`] under CreateTime.
    pub log_append_time: TimestampMs,
}

/// Why a batch is refused, as the Produce reply says it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProduceRejection {
    /// The partition's error code.
    pub code: ErrorCode,
    /// The partition's error message (version 8 on).
    pub message: String,
    /// The records at fault (version 8 on); empty when it is the batch as a whole.
    pub record_errors: Vec<RecordError>,
}

/// One record at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Position of the record in the batch.
    pub index: i32,
    /// What is wrong with it.
    pub message: String,
}

impl ProduceRejection {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ProduceRejection {
            code,
            message: message.into(),
            record_errors: Vec::new(),
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRecord, message)
    }
}

/// Takes a Produce request's records field, which must be exactly one batch of format v2.
pub fn single_batch(records: Option<Bytes>) -> Result<RecordBatch, ProduceRejection> {
    let mut bytes = records.unwrap_or_default();
    let batch = RecordBatch::split_first(&mut bytes).map_err(|error| match error {
        BatchError::Cut { .. } => ProduceRejection::invalid(format!(
            "Produce requests must have exactly one record batch: {error}"
        )),
        BatchError::Magic(0..=1) => ProduceRejection::invalid(
            "Produce requests are only allowed to contain record batches with magic version 2",
        ),
        BatchError::Magic(_) | BatchError::Length(_) => {
            ProduceRejection::new(ErrorCode::CorruptMessage, error.to_string())
        }
    })?;
    if bytes.is_empty() {
        Ok(batch)
    } else {
        Err(ProduceRejection::invalid(format!(
            "Produce requests must have exactly one record batch, {} bytes follow it",
            bytes.len()
        )))
    }
}

/// Checks a client's batch against the rules and brings it into the topic's form.
pub fn validate_produce(
    batch: RecordBatch,
    rules: &ProduceRules,
    scratch: &mut Scratch,
) -> Result<ValidatedBatch, ProduceRejection> {
    let result = validate(batch, rules, scratch);
    scratch.trim();
    result
}

fn validate(
    batch: RecordBatch,
    rules: &ProduceRules,
    scratch: &mut Scratch,
) -> Result<ValidatedBatch, ProduceRejection> {
    let codec = check_header(&batch, rules)?;
    let section = scratch.section(&batch).map_err(records_rejection)?;
    let newest = check_records(&batch, section, rules)?;
    let recompressed = match rules.compression {
        Some(target) if target != codec => Some(recompress(&batch, section, target, rules)?),
        _ => None,
    };
    let mut batch = recompressed.unwrap_or(batch);
    Ok(match rules.timestamp_type {
        TimestampType::CreateTime => {
            batch.set_max_timestamp(newest.timestamp);
            ValidatedBatch {
                batch,
                max_timestamp: newest.timestamp,
                max_timestamp_delta: newest.offset_delta,
                log_append_time: TimestampMs::NONE,
            }
        }
        TimestampType::LogAppendTime => {
            batch.set_log_append_time(rules.now);
            ValidatedBatch {
                batch,
                max_timestamp: rules.now,
                max_timestamp_delta: 0,
                log_append_time: rules.now,
            }
        }
    })
}

/// The checks that need no record, in Kafka's order: first what the log looks at, then the validator.
fn check_header(
    batch: &RecordBatch,
    rules: &ProduceRules,
) -> Result<Compression, ProduceRejection> {
    let unsupported =
        |message: &str| ProduceRejection::new(ErrorCode::UnsupportedCompressionType, message);
    let codec = batch
        .compression()
        .ok_or_else(|| unsupported("Unknown compression type"))?;
    if codec == Compression::Zstd && rules.api_version < ZSTD_PRODUCE_VERSION {
        return Err(unsupported(
            "Produce requests before version 7 may not use ZStandard compression",
        ));
    }
    if batch.base_offset() != Offset(0) {
        return Err(ProduceRejection::invalid(format!(
            "The baseOffset of the record batch should be 0, but it is {}",
            batch.base_offset()
        )));
    }
    check_size(batch, rules)?;
    if !batch.checksum_matches() {
        return Err(ProduceRejection::new(
            ErrorCode::CorruptMessage,
            format!(
                "Record is corrupt (stored crc = {}, computed crc = {})",
                batch.checksum(),
                batch.computed_checksum()
            ),
        ));
    }
    let count = batch.record_count();
    let spanned = i64::from(batch.last_offset_delta()) + 1;
    if count <= 0 || spanned != i64::from(count) {
        return Err(ProduceRejection::invalid(format!(
            "Inconsistent batch: {spanned} offsets and {count} records"
        )));
    }
    if batch.is_control() {
        return Err(ProduceRejection::invalid(
            "Clients are not allowed to write control records",
        ));
    }
    if batch.producer_id().is_some() && batch.base_sequence().0 < 0 {
        return Err(ProduceRejection::invalid(format!(
            "Invalid sequence number {} in record batch with producerId {}",
            batch.base_sequence().0,
            batch.producer_id().0
        )));
    }
    if batch.is_log_append_time() {
        return Err(ProduceRejection::new(
            ErrorCode::InvalidTimestamp,
            "Producer should not set timestamp type to LogAppendTime",
        ));
    }
    Ok(codec)
}

fn check_size(batch: &RecordBatch, rules: &ProduceRules) -> Result<(), ProduceRejection> {
    if batch.size_bytes() <= rules.max_message_bytes {
        return Ok(());
    }
    Err(ProduceRejection::new(
        ErrorCode::MessageTooLarge,
        format!(
            "The record batch size is {} bytes which exceeds the maximum configured value of {}",
            batch.size_bytes(),
            rules.max_message_bytes
        ),
    ))
}

/// The record with the largest timestamp.
struct Newest {
    timestamp: TimestampMs,
    offset_delta: i32,
}

fn check_records(
    batch: &RecordBatch,
    section: &[u8],
    rules: &ProduceRules,
) -> Result<Newest, ProduceRejection> {
    let mut newest = Newest {
        timestamp: TimestampMs::NONE,
        offset_delta: -1,
    };
    let mut errors = RecordErrors::default();
    for (index, record) in (0..).zip(RecordIter::new(section, batch.record_count())) {
        let record = record.map_err(|error| records_rejection(error.into()))?;
        if record.offset_delta != index {
            return Err(ProduceRejection::invalid(format!(
                "Record {index} of the batch has offset delta {}",
                record.offset_delta
            )));
        }
        let timestamp = batch.record_timestamp(record.timestamp_delta);
        if timestamp > newest.timestamp {
            newest = Newest {
                timestamp,
                offset_delta: index,
            };
        }
        errors.check(index, &record, timestamp, rules);
    }
    errors.into_result().map(|()| newest)
}

/// Faults of single records. All records are looked at, so that the producer learns of all at once.
#[derive(Default)]
struct RecordErrors {
    errors: Vec<RecordError>,
    count: usize,
    any_timestamp: bool,
}

impl RecordErrors {
    fn check(
        &mut self,
        index: i32,
        record: &RecordView<'_>,
        timestamp: TimestampMs,
        rules: &ProduceRules,
    ) {
        if rules.is_compacted && record.key.is_none() {
            self.add(index, || {
                "Compacted topic cannot accept message without key".to_owned()
            });
        } else if rules.timestamp_type == TimestampType::CreateTime
            && timestamp != TimestampMs::NONE
            && !timestamp_allowed(timestamp, rules)
        {
            self.any_timestamp = true;
            self.add(index, || {
                format!(
                    "Timestamp {} of message with offset {index} is out of range. \
                     The timestamp should be within [{}, {}]",
                    timestamp.0,
                    rules.now.0.saturating_sub(rules.timestamp_before_max_ms),
                    rules.now.0.saturating_add(rules.timestamp_after_max_ms)
                )
            });
        }
    }

    fn add(&mut self, index: i32, message: impl FnOnce() -> String) {
        self.count += 1;
        if self.errors.len() < limits::RECORD_ERRORS_MAX {
            self.errors.push(RecordError {
                index,
                message: message(),
            });
        }
    }

    fn into_result(self) -> Result<(), ProduceRejection> {
        if self.count == 0 {
            return Ok(());
        }
        let (code, message) = if self.any_timestamp {
            let message =
                "One or more records have been rejected due to invalid timestamp".to_owned();
            (ErrorCode::InvalidTimestamp, message)
        } else {
            let message = format!(
                "One or more records have been rejected due to {} record errors in total",
                self.count
            );
            (ErrorCode::InvalidRecord, message)
        };
        Err(ProduceRejection {
            code,
            message,
            record_errors: self.errors,
        })
    }
}

fn timestamp_allowed(timestamp: TimestampMs, rules: &ProduceRules) -> bool {
    let age = rules.now.0.saturating_sub(timestamp.0);
    age <= rules.timestamp_before_max_ms && age.saturating_neg() <= rules.timestamp_after_max_ms
}

fn recompress(
    batch: &RecordBatch,
    section: &[u8],
    target: Compression,
    rules: &ProduceRules,
) -> Result<RecordBatch, ProduceRejection> {
    let batch = batch.with_section(section, target).map_err(|error| {
        ProduceRejection::new(
            ErrorCode::UnknownServerError,
            format!("Recompression failed: {error}"),
        )
    })?;
    check_size(&batch, rules)?;
    Ok(batch)
}

fn records_rejection(error: RecordsError) -> ProduceRejection {
    let code = match &error {
        RecordsError::UnknownCodec(_) => ErrorCode::UnsupportedCompressionType,
        RecordsError::Decompress(_) | RecordsError::Format(_) => ErrorCode::InvalidRecord,
    };
    ProduceRejection::new(code, error.to_string())
}
