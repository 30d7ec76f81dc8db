//! Sizes of the journal.
//!
//! Owns the limits that follow from the configured sizes; every other module takes them from here.

use super::StoreKnowledge;
use super::format::{BLOCK_BYTES, ENTRY_BYTES, FIRST_GROUP, HEAD_BYTES};

/// Sizes of the journal. Checked by `Journal::open`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// Bytes of one file. Default 64 MiB; 64 KiB to 2 GiB, a multiple of 4096.
    pub file_bytes: u64,
    /// Files that are made at the first start and kept. Default 3, at least 2. Once one less are in use, the oldest is
    /// reclaimed.
    pub files_min: usize,
    /// Files that may exist when checkpoints are slower than appends. Default 16, at least `files_min`.
    pub files_max: usize,
    /// Payload bytes that may wait or be under way before `reserve` makes the caller wait. Default 64 MiB.
    pub queue_bytes_max: usize,
    /// Id of the data directory; files that carry another one are refused. Default: all zero.
    pub directory_id: [u8; 16],
    /// What the key-value store of the same directory knows of the journal. Default: nothing.
    pub store: Option<StoreKnowledge>,
}

/// Smallest and largest file.
const FILE_BYTES_RANGE: std::ops::RangeInclusive<u64> = 64 << 10..=2 << 30;

/// Largest group: bounds the time that a lone frame waits for the write before its own.
const GROUP_BYTES_MAX: u64 = 4 << 20;

/// Most frames in one group: bounds the directory, which is written twice.
const GROUP_FRAMES_MAX: u64 = 1024;

/// Frames up to this size are never split; one that does not fit goes to the next file as a whole.
const WHOLE_BYTES_MAX: u64 = 256 << 10;

/// What follows from the sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) group_bytes: u64,
    pub(super) group_frames: usize,
    /// Frames above it may be split into parts.
    pub(super) whole_bytes: u64,
    /// Smallest part worth making.
    pub(super) part_bytes: u64,
    /// Largest frame.
    pub(super) frame_bytes: u64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        JournalConfig {
            file_bytes: 64 << 20,
            files_min: 3,
            files_max: 16,
            queue_bytes_max: 64 << 20,
            directory_id: [0; 16],
            store: None,
        }
    }
}

impl JournalConfig {
    /// What is wrong with the sizes, if something is.
    pub(super) fn check(&self) -> Result<(), String> {
        if !FILE_BYTES_RANGE.contains(&self.file_bytes)
            || !self.file_bytes.is_multiple_of(BLOCK_BYTES)
        {
            return Err(format!(
                "file size {} is not a multiple of 4096 from 64 KiB to 2 GiB",
                self.file_bytes
            ));
        }
        if self.files_min < 2 || self.files_max < self.files_min {
            return Err(format!(
                "{} to {} files: 2 or more are needed",
                self.files_min, self.files_max
            ));
        }
        if self.queue_bytes_max == 0 || u32::try_from(self.queue_bytes_max).is_err() {
            return Err(format!(
                "a queue of {} bytes is not between 1 byte and 4 GiB",
                self.queue_bytes_max
            ));
        }
        Ok(())
    }

    pub(super) fn limits(&self) -> Limits {
        let group_frames = GROUP_FRAMES_MAX.min(self.file_bytes / 16 / ENTRY_BYTES as u64);
        let room = self.file_bytes - FIRST_GROUP;
        // What is left for payload in a file whose groups are as small as they get when a frame is split.
        let directories = HEAD_BYTES as u64 + 2 * group_frames * ENTRY_BYTES as u64 + BLOCK_BYTES;
        let groups = room.div_ceil(GROUP_BYTES_MAX);
        let usable = room - groups * directories - WHOLE_BYTES_MAX.min(self.file_bytes / 8);
        Limits {
            group_bytes: GROUP_BYTES_MAX.min(room),
            group_frames: usize::try_from(group_frames).unwrap_or(usize::MAX),
            whole_bytes: WHOLE_BYTES_MAX.min(self.file_bytes / 8),
            part_bytes: WHOLE_BYTES_MAX.min(self.file_bytes / 8) / 4,
            // A frame may begin in the last bytes of a file; the file it begins in cannot be reclaimed before its end.
            frame_bytes: (usable * (self.files_min as u64 - 1)).min(u64::from(u32::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_the_largest_kafka_batch() {
        let config = JournalConfig::default();
        config.check().expect("defaults are in order");
        assert!(config.limits().frame_bytes > 101 << 20);
    }

    #[test]
    fn smallest_file_holds_an_unsplit_frame_with_full_directories() {
        let config = JournalConfig {
            file_bytes: 64 << 10,
            files_min: 2,
            ..JournalConfig::default()
        };
        config.check().expect("in order");
        let limits = config.limits();
        let directories = 2 * limits.group_frames as u64 * ENTRY_BYTES as u64;
        assert!(
            HEAD_BYTES as u64 + directories + limits.whole_bytes + BLOCK_BYTES
                <= limits.group_bytes
        );
        assert!(limits.frame_bytes > limits.whole_bytes);
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let good = JournalConfig::default();
        for config in [
            JournalConfig {
                file_bytes: (64 << 20) + 1,
                ..good.clone()
            },
            JournalConfig {
                file_bytes: 4096,
                ..good.clone()
            },
            JournalConfig {
                files_min: 1,
                ..good.clone()
            },
            JournalConfig {
                files_max: 2,
                ..good.clone()
            },
            JournalConfig {
                queue_bytes_max: 0,
                ..good.clone()
            },
        ] {
            assert!(config.check().is_err(), "{config:?}");
        }
    }
}
