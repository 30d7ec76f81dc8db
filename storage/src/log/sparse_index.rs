//! Sparse indexes of a segment, in Kafka's formats: `.index` (offset to position), `.timeindex` (timestamp to offset)
//! and, in the format of the first, `.entryindex` (entry index to position in the side file).
//!
//! Pure, but for the search in a closed segment's file, which goes through the reader it is given. An index only saves
//! a walk: what it says is checked by whoever follows it, and it can be rebuilt from the side file at any time.
//! Invariant: keys rise strictly.

use std::io;

use tidelog_protocol::types::{Offset, TimestampMs};

/// Size of an entry of `.index` and `.entryindex`.
pub const OFFSET_ENTRY_BYTES: usize = 8;
/// Size of an entry of `.timeindex`.
pub const TIME_ENTRY_BYTES: usize = 12;

/// Keys relative to a base, each with a position in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetIndex {
    entries: Vec<(u32, u32)>,
}

impl OffsetIndex {
    /// Adds a key that is above all others; one that does not fit the format is left out.
    pub fn push(&mut self, relative: u64, position: u64) {
        if let (Ok(relative), Ok(position)) = (i32::try_from(relative), i32::try_from(position)) {
            self.entries
                .push((relative.cast_unsigned(), position.cast_unsigned()));
        }
    }

    /// Position of the largest key that is not above `relative`; 0 if there is none.
    pub fn lookup(&self, relative: u64) -> u64 {
        let after = self
            .entries
            .partition_point(|(key, _)| u64::from(*key) <= relative);
        after
            .checked_sub(1)
            .map_or(0, |at| u64::from(self.entries[at].1))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the entries from the `from`th on, as in the file.
    pub fn bytes_from(&self, from: usize) -> Vec<u8> {
        let new = self.entries.get(from..).unwrap_or_default();
        new.iter()
            .flat_map(|(key, at)| [key.to_be_bytes(), at.to_be_bytes()].concat())
            .collect()
    }
}

/// Largest timestamp so far at some offsets of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeIndex {
    entries: Vec<(i64, u32)>,
}

impl TimeIndex {
    /// Adds a timestamp, if it is above all others, with the offset of the last record of its batch.
    pub fn push(&mut self, timestamp: TimestampMs, relative: u64) {
        let rises = self
            .entries
            .last()
            .is_none_or(|(last, _)| *last < timestamp.0);
        if let Ok(relative) = i32::try_from(relative)
            && rises
            && timestamp.0 >= 0
        {
            self.entries.push((timestamp.0, relative.cast_unsigned()));
        }
    }

    /// Relative offset from which records at or after `timestamp` are to be looked for.
    pub fn lookup(&self, timestamp: TimestampMs) -> u64 {
        let after = self
            .entries
            .partition_point(|(time, _)| *time < timestamp.0);
        after
            .checked_sub(1)
            .map_or(0, |at| u64::from(self.entries[at].1))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the entries from the `from`th on, as in the file.
    pub fn bytes_from(&self, from: usize) -> Vec<u8> {
        let new = self.entries.get(from..).unwrap_or_default();
        let encode =
            |(time, key): &(i64, u32)| [&time.to_be_bytes()[..], &key.to_be_bytes()].concat();
        new.iter().flat_map(encode).collect()
    }
}

/// Reads `N` bytes at a position of an index file.
type ReadAt<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<usize>;

/// Like [`OffsetIndex::lookup`], in a file of `file_bytes`.
pub fn lookup_offset(read: ReadAt<'_>, file_bytes: u64, relative: u64) -> io::Result<u64> {
    let below = |entry: [u8; OFFSET_ENTRY_BYTES]| {
        let (key, position) = split_offset_entry(entry);
        (u64::from(key) <= relative).then_some(u64::from(position))
    };
    Ok(last_matching(read, file_bytes, below)?.unwrap_or(0))
}

/// The last entry of a time index of `file_bytes` below a timestamp: its time and relative offset.
pub fn lookup_time(
    read: ReadAt<'_>,
    file_bytes: u64,
    timestamp: TimestampMs,
) -> io::Result<Option<(TimestampMs, u64)>> {
    let below = |entry: [u8; TIME_ENTRY_BYTES]| {
        let (time, key) = split_time_entry(entry);
        (time.0 < timestamp.0).then_some((time, u64::from(key)))
    };
    last_matching(read, file_bytes, below)
}

/// Last entry of a time index file: the largest timestamp of the segment and the offset of its batch's last record.
pub fn last_time(
    read: ReadAt<'_>,
    file_bytes: u64,
    base: Offset,
) -> io::Result<Option<(TimestampMs, Offset)>> {
    let all = |entry: [u8; TIME_ENTRY_BYTES]| Some(split_time_entry(entry));
    let found = last_matching(read, file_bytes, all)?;
    Ok(found.map(|(time, key)| (time, Offset(base.0.saturating_add(i64::from(key))))))
}

fn split_offset_entry(entry: [u8; OFFSET_ENTRY_BYTES]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = entry;
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    )
}

fn split_time_entry(entry: [u8; TIME_ENTRY_BYTES]) -> (TimestampMs, u32) {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = entry;
    let time = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
    (TimestampMs(time), u32::from_be_bytes([i, j, k, l]))
}

/// What `accept` makes of the last entry that it accepts; it must accept a prefix of the entries.
fn last_matching<const N: usize, T>(
    read: ReadAt<'_>,
    file_bytes: u64,
    accept: impl Fn([u8; N]) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut found = None;
    let (mut low, mut high) = (0, file_bytes / N as u64);
    while low < high {
        // The last entry first: most readers want the end.
        let middle = if found.is_none() && low == 0 && high == file_bytes / N as u64 {
            high - 1
        } else {
            low + (high - low) / 2
        };
        let mut entry = [0; N];
        if read(&mut entry, middle * N as u64)? < N {
            high = middle;
            continue;
        }
        match accept(entry) {
            Some(value) => {
                found = Some(value);
                low = middle + 1;
            }
            None => high = middle,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reader(bytes: &[u8]) -> impl Fn(&mut [u8], u64) -> io::Result<usize> + '_ {
        |buf, at| {
            let from = usize::try_from(at).expect("small").min(bytes.len());
            let n = buf.len().min(bytes.len() - from);
            buf[..n].copy_from_slice(&bytes[from..from + n]);
            Ok(n)
        }
    }

    proptest! {
        #[test]
        fn file_and_memory_agree(steps in prop::collection::vec((1u64..50, 1u64..9000), 0..80), asked in 0u64..4500) {
            let (mut offsets, mut times) = (OffsetIndex::default(), TimeIndex::default());
            let (mut key, mut position) = (0, 0);
            let mut model = Vec::new();
            for (step, bytes) in steps {
                key += step;
                position += bytes;
                offsets.push(key, position);
                times.push(TimestampMs(key.cast_signed() * 2), position);
                model.push((key, position));
            }
            let expected = model.iter().rev().find(|(key, _)| *key <= asked).map_or(0, |(_, at)| *at);
            prop_assert_eq!(offsets.lookup(asked), expected);
            let bytes = offsets.bytes_from(0);
            prop_assert_eq!(lookup_offset(&reader(&bytes), bytes.len() as u64, asked).unwrap(), expected);
            let time = TimestampMs(asked.cast_signed());
            let expected = model.iter().rev().find(|(key, _)| *key * 2 < asked).map_or(0, |(_, at)| *at);
            prop_assert_eq!(times.lookup(time), expected);
            let bytes = times.bytes_from(0);
            let found = lookup_time(&reader(&bytes), bytes.len() as u64, time).unwrap();
            prop_assert_eq!(found.map_or(0, |(_, key)| key), expected);
            let last = last_time(&reader(&bytes), bytes.len() as u64, Offset(7)).unwrap();
            let expected = model.last().map(|(key, at)| (TimestampMs(key.cast_signed() * 2), Offset(at.cast_signed() + 7)));
            prop_assert_eq!(last, expected);
        }
    }

    #[test]
    fn times_rise() {
        let mut times = TimeIndex::default();
        times.push(TimestampMs(5), 1);
        times.push(TimestampMs(5), 2);
        times.push(TimestampMs(4), 3);
        times.push(TimestampMs::NONE, 4);
        assert_eq!(times.len(), 1);
    }
}
