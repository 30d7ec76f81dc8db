//! What a broker would find in a data directory, without changing anything there.
//!
//! Recovery itself runs, over a file system and a key-value store that keep every change in memory; then every file of
//! every log is read and held against the others, which recovery leaves for later. Knows no format: the readers are
//! those of recovery, reads and compaction. Invariant: the directory is as it was.

mod names;
mod report;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

pub use report::{CheckReport, Finding, Outcome};

use crate::fs::{DirectoryIdentity, FileSystem, OverlayFs};
use crate::journal::{Damage, Journal, JournalConfig, directory_id};
use crate::kv::{KeyValueStore, KvError};
use crate::log::{Harm, LogError, LogId, PartitionLog};
use crate::manager::{JOURNAL, LogManager, OpenError, RecoveryReport, StorageOptions};

/// File of the identity, and folder of the key-value store, as findings name them.
const IDENTITY: &str = "meta.properties";
const STORE: &str = "kv";

/// Files held open: few, for the limit may not have been raised.
const OPEN_FILES_MAX: usize = 256;

/// What to look at.
#[derive(Debug)]
pub struct CheckOptions {
    /// Data directory.
    pub directory: PathBuf,
    /// File system that holds it; only read.
    pub fs: Arc<dyn FileSystem>,
    /// A copy of its key-value store, or why there is none. What recovery writes goes to the copy.
    pub kv: Result<Arc<dyn KeyValueStore>, KvError>,
}

/// Looks at a directory that no process uses. Blocks.
pub fn check(options: CheckOptions) -> CheckReport {
    let mut checker = Checker {
        overlay: Arc::new(OverlayFs::new(Arc::clone(&options.fs))),
        report: CheckReport::default(),
        options,
    };
    checker.run();
    checker.report.sort();
    checker.report
}

struct Checker {
    options: CheckOptions,
    overlay: Arc<OverlayFs>,
    report: CheckReport,
}

impl Checker {
    fn run(&mut self) {
        let id = self.identity();
        let names = names::unknown(&*self.options.fs, &self.options.directory);
        self.report.findings.extend(names);
        let journal = JournalConfig {
            directory_id: *id.unwrap_or_default().as_bytes(),
            ..JournalConfig::default()
        };
        match self.options.kv.clone() {
            Ok(kv) => self.recover(kv, journal),
            Err(error) => {
                self.tell(STORE, None, error.0, Outcome::NoStart);
                self.journal_alone(journal);
            }
        }
    }

    fn tell(&mut self, file: &str, position: Option<u64>, problem: String, outcome: Outcome) {
        self.report.add(Finding {
            file: file.to_owned(),
            position,
            problem,
            outcome,
        });
    }

    /// The directory's id, from its identity or, failing that, from the journal.
    fn identity(&mut self) -> Option<Uuid> {
        let (fs, directory) = (&*self.options.fs, &self.options.directory);
        let journal = || directory_id(&*self.overlay, &directory.join(JOURNAL)).ok()?;
        let id = match DirectoryIdentity::load(fs, directory) {
            Ok(identity) => return identity.map(|identity| identity.directory_id),
            Err(error) => {
                let id = journal().map(Uuid::from_bytes);
                (id, error.to_string())
            }
        };
        let shown = format!("{}: ", directory.join(IDENTITY).display());
        let problem = id.1.strip_prefix(&shown).unwrap_or(&id.1).to_owned();
        let problem = match id.0 {
            Some(id) => format!("{problem} (the journal says directory.id={id})"),
            None => problem,
        };
        self.tell(IDENTITY, None, problem, Outcome::NoStart);
        id.0
    }

    fn recover(&mut self, kv: Arc<dyn KeyValueStore>, journal: JournalConfig) {
        let fs: Arc<dyn FileSystem> = self.overlay.clone();
        let mut options = StorageOptions::new(self.options.directory.clone(), fs, kv);
        options.journal = journal;
        options.open_files_max = OPEN_FILES_MAX;
        match LogManager::recover(options) {
            Ok((manager, recovered)) => {
                self.recovered(&manager, recovered);
                for log in manager.all() {
                    self.log(&log);
                }
                let known = manager.all().iter().map(|log| log.folder()).collect();
                let orphans = names::orphans(
                    &*self.options.fs,
                    &*self.overlay,
                    &self.options.directory,
                    &known,
                );
                self.report.findings.extend(orphans);
            }
            Err(error) => self.no_start(error),
        }
    }

    fn no_start(&mut self, error: OpenError) {
        let text = error.to_string();
        match error {
            OpenError::Journal(error) => {
                self.tell(&error.file, None, error.reason, Outcome::NoStart)
            }
            OpenError::Damaged(Damage {
                file,
                position,
                reason,
                ..
            }) => {
                self.tell(&file, Some(position), reason, Outcome::NoStart);
            }
            OpenError::Io { path, source } => {
                self.tell(&path, None, source.to_string(), Outcome::NoStart)
            }
            OpenError::Kv(_) | OpenError::StoreLost(_) | OpenError::Format(_) => {
                self.tell(STORE, None, text, Outcome::NoStart);
            }
        }
    }

    fn recovered(&mut self, manager: &LogManager, recovered: RecoveryReport) {
        self.report.clean_stop = recovered.clean;
        self.report.logs = manager.logs();
        self.report.frames_replayed = recovered.frames_replayed;
        self.report.tail_cut = recovered.tail_cut;
        for damage in recovered.journal_damage {
            let log = damage.log.and_then(|id: LogId| manager.log_by_id(id));
            let stopped = log.filter(|log| log.failure().is_some());
            let outcome = match stopped {
                Some(log) => Outcome::offline(&log),
                None => Outcome::Reported,
            };
            self.tell(&damage.file, Some(damage.position), damage.reason, outcome);
        }
    }

    fn log(&mut self, log: &PartitionLog) {
        if let Some(error) = log.failure() {
            return self.error(error, Outcome::offline(log));
        }
        let mut told = Vec::new();
        let verified = log.verify(&mut |error, harm| told.push((error, harm)));
        self.report.segments += verified.segments;
        self.report.entries += verified.entries;
        self.report.batches += verified.batches;
        self.report.bytes += verified.bytes;
        for (error, harm) in told {
            let outcome = match harm {
                Harm::Stops => Outcome::offline(log),
                Harm::Unreadable => Outcome::unreadable(log),
                Harm::None => Outcome::NotNeeded,
            };
            self.error(error, outcome);
        }
    }

    fn error(&mut self, error: LogError, outcome: Outcome) {
        match error {
            LogError::Corrupt {
                file,
                position,
                reason,
            } => self.tell(&file, Some(position), reason, outcome),
            other => self.tell("topics", None, other.to_string(), outcome),
        }
    }

    /// Without the store nothing can be said of logs.
    fn journal_alone(&mut self, config: JournalConfig) {
        let (fs, directory) = (self.overlay.clone(), self.options.directory.join(JOURNAL));
        match Journal::open(fs, directory, config, &mut drop) {
            Ok((_, report)) => {
                for damage in report.damaged {
                    self.tell(
                        &damage.file,
                        Some(damage.position),
                        damage.reason,
                        Outcome::NoStart,
                    );
                }
            }
            Err(error) => self.tell(&error.file, None, error.reason, Outcome::NoStart),
        }
    }
}
