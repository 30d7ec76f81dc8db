//! Fields of Kafka's non-flexible formats: big-endian numbers, strings with an i16 and bytes with an i32 in front.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::{FieldTooLong, RecordError};

/// Reads fields one after the other; each names itself for the error.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], RecordError> {
        let (field, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(RecordError::Cut(what))?;
        self.0 = rest;
        Ok(*field)
    }

    fn slice(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], RecordError> {
        let (field, rest) = self.0.split_at_checked(len).ok_or(RecordError::Cut(what))?;
        self.0 = rest;
        Ok(field)
    }

    pub(super) fn i16(&mut self, what: &'static str) -> Result<i16, RecordError> {
        self.array(what).map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self, what: &'static str) -> Result<i32, RecordError> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self, what: &'static str) -> Result<i64, RecordError> {
        self.array(what).map(i64::from_be_bytes)
    }

    pub(super) fn nullable_string(
        &mut self,
        what: &'static str,
    ) -> Result<Option<Arc<str>>, RecordError> {
        let Ok(len) = usize::try_from(self.i16(what)?) else {
            return Ok(None);
        };
        let text =
            std::str::from_utf8(self.slice(len, what)?).map_err(|_| RecordError::NotText(what))?;
        Ok(Some(Arc::from(text)))
    }

    pub(super) fn string(&mut self, what: &'static str) -> Result<Arc<str>, RecordError> {
        self.nullable_string(what)?.ok_or(RecordError::Cut(what))
    }

    pub(super) fn bytes(&mut self, what: &'static str) -> Result<Bytes, RecordError> {
        let len = usize::try_from(self.i32(what)?).map_err(|_| RecordError::Cut(what))?;
        Ok(Bytes::copy_from_slice(self.slice(len, what)?))
    }

    pub(super) fn end(self) -> Result<(), RecordError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(RecordError::Trailing(self.0.len()))
        }
    }
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) -> Result<(), FieldTooLong> {
    let len = i16::try_from(text.len()).map_err(|_| FieldTooLong(text.len()))?;
    out.put_i16(len);
    out.put_slice(text.as_bytes());
    Ok(())
}

pub(super) fn put_nullable_string(
    out: &mut Vec<u8>,
    text: Option<&str>,
) -> Result<(), FieldTooLong> {
    match text {
        Some(text) => put_string(out, text),
        None => {
            out.put_i16(-1);
            Ok(())
        }
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), FieldTooLong> {
    let len = i32::try_from(bytes.len()).map_err(|_| FieldTooLong(bytes.len()))?;
    out.put_i32(len);
    out.put_slice(bytes);
    Ok(())
}
