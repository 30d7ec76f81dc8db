//! Reads just enough of a reply to know whether it is one: error codes, and for Fetch where the partition goes on.
//!
//! Touches the fields before the records and each batch's header, never a record: the codec's structs would cost an
//! allocation per reply. Nothing in here may panic on what a broker sent.

/// First version of Produce with compact lengths and tags.
pub(crate) const PRODUCE_FLEXIBLE: i16 = 9;
/// The same of Fetch.
pub(crate) const FETCH_FLEXIBLE: i16 = 12;

/// What a reply that cannot be read is called.
pub(crate) type Malformed = &'static str;

/// What a Fetch reply about one partition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) partition: i32,
    pub(crate) error: i16,
    pub(crate) high_watermark: i64,
    pub(crate) record_bytes: usize,
    /// Offset behind the last batch that came whole.
    pub(crate) next_offset: Option<i64>,
    /// Records in the batches that came whole.
    pub(crate) records: u64,
}

/// The front of what is left of a reply.
struct Cursor<'a> {
    rest: &'a [u8],
    is_flexible: bool,
}

const CUT: Malformed = "the reply is cut";

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self.rest.split_at_checked(count).ok_or(CUT)?;
        self.rest = rest;
        Ok(front)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (front, rest) = self.rest.split_first_chunk::<N>().ok_or(CUT)?;
        self.rest = rest;
        Ok(*front)
    }

    fn int16(&mut self) -> Result<i16, Malformed> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    fn int32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    fn int64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    fn unsigned(&mut self) -> Result<usize, Malformed> {
        let mut value = 0usize;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a length has more than five bytes")
    }

    /// Length of an array or of bytes; null counts as empty.
    fn length(&mut self) -> Result<usize, Malformed> {
        if self.is_flexible {
            Ok(self.unsigned()?.saturating_sub(1))
        } else {
            Ok(usize::try_from(self.int32()?).unwrap_or(0))
        }
    }

    fn skip_string(&mut self) -> Result<(), Malformed> {
        let length = if self.is_flexible {
            self.unsigned()?.saturating_sub(1)
        } else {
            usize::try_from(self.int16()?).unwrap_or(0)
        };
        self.take(length).map(drop)
    }

    /// Correlation id, and the tags of a flexible header.
    fn header(&mut self) -> Result<(), Malformed> {
        self.int32()?;
        if self.is_flexible {
            for _ in 0..self.unsigned()? {
                self.unsigned()?;
                let length = self.unsigned()?;
                self.take(length)?;
            }
        }
        Ok(())
    }
}

/// The error code of a Produce reply about one partition.
pub(crate) fn produced(reply: &[u8], version: i16) -> Result<i16, Malformed> {
    let mut cursor = Cursor {
        rest: reply,
        is_flexible: version >= PRODUCE_FLEXIBLE,
    };
    cursor.header()?;
    if cursor.length()? != 1 {
        return Err("the reply is not about one topic");
    }
    cursor.skip_string()?;
    if cursor.length()? != 1 {
        return Err("the reply is not about one partition");
    }
    cursor.int32()?;
    cursor.int16()
}

/// What a Fetch reply about one partition says.
pub(crate) fn fetched(reply: &[u8], version: i16) -> Result<Fetched, Malformed> {
    let mut cursor = Cursor {
        rest: reply,
        is_flexible: version >= FETCH_FLEXIBLE,
    };
    cursor.header()?;
    cursor.int32()?;
    if version >= 7 {
        let error = cursor.int16()?;
        cursor.int32()?;
        if error != 0 {
            return Ok(Fetched::refused(error));
        }
    }
    if cursor.length()? != 1 {
        return Err("the reply is not about one topic");
    }
    cursor.skip_string()?;
    if cursor.length()? != 1 {
        return Err("the reply is not about one partition");
    }
    let partition = cursor.int32()?;
    let error = cursor.int16()?;
    let high_watermark = cursor.int64()?;
    cursor.int64()?;
    if version >= 5 {
        cursor.int64()?;
    }
    if cursor.length()? != 0 {
        return Err("the reply names aborted transactions");
    }
    if version >= 11 {
        cursor.int32()?;
    }
    let length = cursor.length()?;
    let records = cursor.take(length)?;
    let (next_offset, count) = walk(records);
    Ok(Fetched {
        partition,
        error,
        high_watermark,
        record_bytes: length,
        next_offset,
        records: count,
    })
}

impl Fetched {
    fn refused(error: i16) -> Self {
        Fetched {
            partition: -1,
            error,
            high_watermark: -1,
            record_bytes: 0,
            next_offset: None,
            records: 0,
        }
    }
}

/// Where offset, length, last offset delta and record count stand in a batch, and how long its header is.
const LENGTH_AT: usize = 8;
const DELTA_AT: usize = 23;
const COUNT_AT: usize = 57;
const BATCH_HEADER: usize = 61;
/// Base offset and length, which the length does not count.
const OVERHEAD: usize = 12;

/// The offset behind the last whole batch, and the records in the whole ones. The last batch may be cut.
fn walk(mut records: &[u8]) -> (Option<i64>, u64) {
    let (mut next, mut count) = (None, 0u64);
    while let Some(header) = records.get(..BATCH_HEADER) {
        let int32 = |at: usize| {
            header
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(0, i32::from_be_bytes)
        };
        let base = header
            .first_chunk::<8>()
            .map_or(0, |b| i64::from_be_bytes(*b));
        let length = usize::try_from(int32(LENGTH_AT)).unwrap_or(0);
        let Some(rest) = records.get(OVERHEAD.saturating_add(length)..) else {
            break;
        };
        if length + OVERHEAD < BATCH_HEADER {
            break;
        }
        next = Some(
            base.saturating_add(i64::from(int32(DELTA_AT)))
                .saturating_add(1),
        );
        count += u64::try_from(int32(COUNT_AT)).unwrap_or(0);
        records = rest;
    }
    (next, count)
}

#[cfg(test)]
mod tests;
