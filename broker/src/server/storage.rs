//! Opening the data directory: lock, identity, key-value store, logs. Blocks; runs beside the runtime.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_protocol::types::BrokerId;
use tidelog_storage::fs::{DirectoryIdentity, DirectoryLock, FileSystem};
use tidelog_storage::kv::KeyValueStore;
use tidelog_storage::manager::{LogManager, SpaceReserve, StorageOptions};
use tracing::{error, info};
use uuid::Uuid;

use crate::config::BrokerConfig;
use crate::server::cluster_id;
use crate::server::error::ServerError;
use crate::server::fault::Medium;
use crate::server::open_files::OpenFiles;

/// A data directory that this process holds, before anything in it was touched.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    medium: Medium,
    fs: Arc<dyn FileSystem>,
    lock: DirectoryLock,
    pub(crate) cluster_id: Uuid,
    pub(crate) directory_id: Uuid,
    /// Whether it is of a broker that joins a cluster and has not been admitted yet.
    pub(crate) joining: bool,
}

/// The identity of a data directory whose broker its cluster has admitted.
#[derive(Debug)]
pub(crate) struct Admission {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    identity: DirectoryIdentity,
}

impl Admission {
    /// Writes it: from now on the broker needs nobody to introduce it. Blocks.
    pub(crate) fn record(&self) -> Result<(), ServerError> {
        Ok(self.identity.store(&*self.fs, &self.directory)?)
    }
}

/// An open data directory. The lock is held for as long as this lives.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) logs: Arc<LogManager>,
    pub(crate) stopped_cleanly: bool,
    pub(crate) boot_id: String,
    _lock: DirectoryLock,
}

impl DataDirectory {
    /// Takes the lock and reads the identity; a new directory gets one.
    pub(crate) fn claim(config: &BrokerConfig) -> Result<DataDirectory, ServerError> {
        let directory = config.data_dir.as_path();
        let medium = Medium::of_environment()?;
        let fs = medium.files();
        let lock = DirectoryLock::acquire(&*fs, directory)?;
        let identity = match DirectoryIdentity::load(&*fs, directory)? {
            Some(identity) => identity,
            // Until its cluster is known nothing is written.
            None if !config.network.bootstrap_servers.is_empty() => DirectoryIdentity {
                joining: true,
                ..DirectoryIdentity::generate(cluster_id::to_text(Uuid::nil()), config.node_id)
            },
            None => first_identity(&*fs, directory, config.node_id)?,
        };
        if identity.joining && config.network.bootstrap_servers.is_empty() {
            return Err(ServerError::NotJoined {
                directory: directory.display().to_string(),
            });
        }
        if identity.broker_id != config.node_id {
            return Err(ServerError::BrokerId {
                directory: directory.display().to_string(),
                found: identity.broker_id.0,
                configured: config.node_id.0,
            });
        }
        let cluster_id =
            cluster_id::from_text(&identity.cluster_id).ok_or_else(|| ServerError::ClusterId {
                directory: directory.display().to_string(),
                found: identity.cluster_id.clone(),
            })?;
        Ok(DataDirectory {
            medium,
            fs,
            lock,
            cluster_id,
            directory_id: identity.directory_id,
            joining: identity.joining,
        })
    }

    /// The cluster that it is to join is known now.
    pub(crate) fn belong_to(
        &mut self,
        cluster: Uuid,
        config: &BrokerConfig,
    ) -> Result<(), ServerError> {
        if !self.cluster_id.is_nil() && self.cluster_id != cluster {
            return Err(ServerError::OtherCluster {
                directory: config.data_dir.display().to_string(),
                found: cluster_id::to_text(self.cluster_id),
                asked: cluster_id::to_text(cluster),
            });
        }
        self.cluster_id = cluster;
        self.identity(config, true)
            .store(&*self.fs, &config.data_dir)?;
        Ok(())
    }

    /// What is left to write once the cluster has admitted the broker.
    pub(crate) fn admission(&self, config: &BrokerConfig) -> Option<Admission> {
        self.joining.then(|| Admission {
            fs: Arc::clone(&self.fs),
            directory: config.data_dir.clone(),
            identity: self.identity(config, false),
        })
    }

    fn identity(&self, config: &BrokerConfig, joining: bool) -> DirectoryIdentity {
        DirectoryIdentity {
            directory_id: self.directory_id,
            joining,
            ..DirectoryIdentity::generate(cluster_id::to_text(self.cluster_id), config.node_id)
        }
    }

    /// Opens and recovers what is in it.
    pub(crate) fn open(self, config: &BrokerConfig) -> Result<Storage, ServerError> {
        let directory = config.data_dir.as_path();
        let kv = self.medium.key_values(&directory.join("kv"));
        let kv = kv.map_err(|source| ServerError::Kv {
            directory: directory.display().to_string(),
            source,
        })?;
        let options = options(config, self.directory_id, self.fs, kv);
        let (logs, report) = LogManager::open(options)?;
        info!(
            clean = report.clean,
            logs = report.logs,
            frames_replayed = report.frames_replayed,
            bytes_replayed = report.bytes_replayed,
            took_ms = report.duration.as_millis(),
            "data directory opened"
        );
        for (log, reason) in &report.stopped {
            error!(
                log = log.0,
                reason, "a log is damaged; its partition is offline, the others go on"
            );
        }
        Ok(Storage {
            stopped_cleanly: report.clean,
            boot_id: self.medium.boot_id(),
            logs,
            _lock: self.lock,
        })
    }
}

fn first_identity(
    fs: &dyn FileSystem,
    directory: &Path,
    broker: BrokerId,
) -> Result<DirectoryIdentity, ServerError> {
    let identity = DirectoryIdentity::generate(cluster_id::to_text(Uuid::new_v4()), broker);
    identity.store(fs, directory)?;
    Ok(identity)
}

/// What the configuration says of storage. Sizes beyond what this machine can address are its largest.
fn options(
    config: &BrokerConfig,
    directory_id: Uuid,
    fs: Arc<dyn FileSystem>,
    kv: Arc<dyn KeyValueStore>,
) -> StorageOptions {
    let storage = &config.storage;
    let mut options = StorageOptions::new(config.data_dir.clone(), fs, kv);
    options.journal.directory_id = *directory_id.as_bytes();
    options.journal.file_bytes = storage.journal_file_bytes;
    options.journal.files_min = usize::try_from(storage.journal_files_min).unwrap_or(usize::MAX);
    let files_max = storage.journal_bytes_max / storage.journal_file_bytes.max(1);
    options.journal.files_max = usize::try_from(files_max)
        .unwrap_or(usize::MAX)
        .max(options.journal.files_min);
    options.cache_bytes_max = usize::try_from(storage.cache_bytes).unwrap_or(usize::MAX);
    options.open_files_max = OpenFiles::of_process(config).segments;
    options.reserve = SpaceReserve {
        per_mille: (storage.disk_reserve_percent * 10.0).clamp(0.0, 1000.0) as u16,
        bytes_max: storage.disk_reserve_bytes,
    };
    options
}
