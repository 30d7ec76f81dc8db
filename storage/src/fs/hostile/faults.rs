//! Which operation goes wrong, and how.
//!
//! Owns the switches of a `HostileFs` and the count of operations. Knows nothing of names and contents.

use std::io;

use crate::SyncPoint;
use crate::fs::random::Random;

/// What an operation does, as far as faults tell operations apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A write to a file.
    Write,
    /// A sync of a file.
    Sync,
    /// A sync of a directory.
    SyncDirectory,
    /// A change of names or of a file's size.
    Change,
}

/// How an operation proceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As asked.
    Proceed,
    /// Its effect may reach the disk or not, and the caller hears an error.
    Interrupted,
    /// The device refused.
    Refused,
}

#[derive(Debug)]
pub(super) struct Faults {
    pub(super) random: Random,
    /// Rises at each power loss; handles of an earlier life are dead.
    pub(super) life: u64,
    pub(super) operations: u64,
    /// The operation during which the power goes; all later ones fail.
    cut_at: Option<u64>,
    /// Operations of a kind that pass before one is refused.
    refusals: Vec<(Operation, u64)>,
    pub(super) syncs_ignored: bool,
    pub(super) left_out: Option<SyncPoint>,
    pub(super) out_of_files: bool,
    pub(super) sectors_torn: bool,
    pub(super) bytes_used: u64,
    pub(super) bytes_max: Option<u64>,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Faults {
        Faults {
            random: Random::new(seed),
            life: 0,
            operations: 0,
            cut_at: None,
            refusals: Vec::new(),
            syncs_ignored: false,
            left_out: None,
            out_of_files: false,
            sectors_torn: false,
            bytes_used: 0,
            bytes_max: None,
        }
    }

    pub(super) fn cut_power_after(&mut self, operations: u64) {
        self.cut_at = Some(self.operations + operations);
    }

    pub(super) fn refuse(&mut self, operation: Operation, passing: u64) {
        self.refusals.push((operation, passing));
    }

    pub(super) fn begin_life(&mut self, seed: u64) {
        self.random = Random::new(seed);
        self.life += 1;
        self.cut_at = None;
        self.refusals.clear();
    }

    /// Counts an operation that changes something and says how it ends.
    pub(super) fn begin(&mut self, operation: Operation) -> io::Result<Verdict> {
        let number = self.operations;
        if self.cut_at.is_some_and(|cut| number > cut) {
            return Err(power_is_gone());
        }
        self.operations += 1;
        if self.cut_at == Some(number) {
            return Ok(Verdict::Interrupted);
        }
        for refusal in self
            .refusals
            .iter_mut()
            .filter(|refusal| refusal.0 == operation)
        {
            if refusal.1 == 0 {
                let done = (operation, 0);
                self.refusals.retain(|other| *other != done);
                return Ok(Verdict::Refused);
            }
            refusal.1 -= 1;
        }
        Ok(Verdict::Proceed)
    }

    /// Whether a sync is to do nothing.
    pub(super) fn leaves_out(&self, point: SyncPoint) -> bool {
        self.syncs_ignored || self.left_out == Some(point)
    }

    /// Reads fail too once the power is gone.
    pub(super) fn check_power(&self) -> io::Result<()> {
        if self.cut_at.is_some_and(|cut| self.operations > cut) {
            Err(power_is_gone())
        } else {
            Ok(())
        }
    }

    /// Accounts for a file that grows; refused where the disk is full.
    pub(super) fn grow(&mut self, bytes: u64) -> io::Result<()> {
        let used = self.bytes_used + bytes;
        if bytes > 0 && self.bytes_max.is_some_and(|max| used > max) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes_used = used;
        Ok(())
    }

    pub(super) fn shrink(&mut self, bytes: u64) {
        self.bytes_used = self.bytes_used.saturating_sub(bytes);
    }
}

pub(super) fn power_is_gone() -> io::Error {
    io::Error::other("power is gone")
}

pub(super) fn device_error() -> io::Error {
    rustix::io::Errno::IO.into()
}
