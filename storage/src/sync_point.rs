//! Every call that makes something durable, by name.
//!
//! Each place that syncs a file, a directory or a batch of the key-value store says which one it is, so that tests and
//! the fault build can leave out any single one and show what is lost without it. Invariant: one name, one place in
//! the code; tests check both this and that the list is complete. Production code only passes names on.

/// A call that makes something durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SyncPoint {
    /// Contents of `meta.properties`.
    IdentityContents,
    /// The name of `meta.properties`.
    IdentityName,
    /// The names of the folders in the data directory.
    DataFolders,
    /// The name of the data directory in its parent.
    DataDirectory,
    /// Names in the journal's directory that an earlier life may have left unsynced.
    JournalDirectory,
    /// Files of the journal that an earlier life may have left unsynced, before they are read.
    JournalFound,
    /// The last groups, which an earlier life may have failed to sync, written once more.
    JournalRewritten,
    /// A file that was cut behind its last group and is made whole again.
    JournalMadeWhole,
    /// The end of the files' names where the journal begins anew after a clean stop.
    JournalBegunAnew,
    /// Which files there are, for the next start to miss them.
    JournalFilesNoted,
    /// The first copy of a file's header that is written.
    JournalHeader,
    /// The name of a new file of the journal.
    JournalFileMade,
    /// The end of a file's name that the journal does not need any more.
    JournalFileRemoved,
    /// A group with frames that wait for stable storage.
    JournalGroup,
    /// What is not synced of a file that the journal leaves.
    JournalFileLeft,
    /// What is not synced when the journal is closed.
    JournalClosed,
    /// The seal behind the last group of a journal that is closed.
    JournalSeal,
    /// Frames that were set aside.
    SideFrames,
    /// The seal behind frames that were set aside.
    SideSeal,
    /// The name of a side file.
    SideMade,
    /// The end of a side file's name.
    SideRemoved,
    /// Batches and entries of a log, before a checkpoint.
    SegmentRecords,
    /// Indexes and producer snapshots of a log, before a checkpoint.
    SegmentIndexes,
    /// Names of a log's files, before a checkpoint.
    SegmentNames,
    /// The name of a log's folder, before a checkpoint.
    LogFolder,
    /// Indexes of a compacted segment.
    CompactedIndexes,
    /// Batches of a compacted segment.
    CompactedRecords,
    /// Names of a compacted segment's files.
    CompactedNames,
    /// Checkpoints of logs whose journal frames give way.
    Checkpoint,
    /// The checkpoint of a log before entries of it are settled.
    SettledCheckpoint,
    /// The mark of a log that is being removed.
    RemovalMark,
    /// The mark of a clean stop.
    CleanStop,
    /// The end of that mark.
    CleanStopTaken,
    /// Vote of a consensus group.
    GroupVote,
    /// Snapshot that a consensus group made, with what it has applied.
    GroupSnapshot,
    /// Snapshot that a consensus group was sent, with what it has applied.
    GroupSnapshotInstalled,
    /// Snapshot of the cluster metadata.
    ImageSnapshot,
    /// What the controller has applied once it installed a snapshot.
    ImageInstalled,
}

impl SyncPoint {
    /// All of them.
    pub const ALL: &[SyncPoint] = &[
        SyncPoint::IdentityContents,
        SyncPoint::IdentityName,
        SyncPoint::DataFolders,
        SyncPoint::DataDirectory,
        SyncPoint::JournalDirectory,
        SyncPoint::JournalFound,
        SyncPoint::JournalRewritten,
        SyncPoint::JournalMadeWhole,
        SyncPoint::JournalBegunAnew,
        SyncPoint::JournalFilesNoted,
        SyncPoint::JournalHeader,
        SyncPoint::JournalFileMade,
        SyncPoint::JournalFileRemoved,
        SyncPoint::JournalGroup,
        SyncPoint::JournalFileLeft,
        SyncPoint::JournalClosed,
        SyncPoint::JournalSeal,
        SyncPoint::SideFrames,
        SyncPoint::SideSeal,
        SyncPoint::SideMade,
        SyncPoint::SideRemoved,
        SyncPoint::SegmentRecords,
        SyncPoint::SegmentIndexes,
        SyncPoint::SegmentNames,
        SyncPoint::LogFolder,
        SyncPoint::CompactedIndexes,
        SyncPoint::CompactedRecords,
        SyncPoint::CompactedNames,
        SyncPoint::Checkpoint,
        SyncPoint::SettledCheckpoint,
        SyncPoint::RemovalMark,
        SyncPoint::CleanStop,
        SyncPoint::CleanStopTaken,
        SyncPoint::GroupVote,
        SyncPoint::GroupSnapshot,
        SyncPoint::GroupSnapshotInstalled,
        SyncPoint::ImageSnapshot,
        SyncPoint::ImageInstalled,
    ];

    /// The point of this name, as `Debug` writes it.
    pub fn of_name(name: &str) -> Option<SyncPoint> {
        let mut all = SyncPoint::ALL.iter().copied();
        all.find(|point| format!("{point:?}") == name)
    }
}
