//! Who a data directory belongs to: `DATA/meta.properties`.
//!
//! Written once when the directory is first used and again when its format rises; readable by a person, in the form
//! that Kafka uses. Invariant: the file is replaced whole or not at all. Knows nothing of what else is in the directory.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use tidelog_protocol::types::BrokerId;
use uuid::Uuid;

use super::{FileSystem, OpenMode};
use crate::SyncPoint;

const FILE: &str = "meta.properties";
const TEMPORARY: &str = "meta.properties.tmp";

/// The file is a few lines; anything longer is not one of ours.
const FILE_BYTES_MAX: usize = 4096;

/// Newest format of the data directory that this code reads and the one it writes.
pub const FORMAT_VERSION: u32 = 1;

/// Identity of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryIdentity {
    /// Format of the directory as a whole: the oldest code that may open it must know this number.
    pub version: u32,
    /// The cluster it belongs to.
    pub cluster_id: String,
    /// Random id of this directory; a directory that was emptied gets another one.
    pub directory_id: Uuid,
    /// The broker it belongs to.
    pub broker_id: BrokerId,
    /// Whether it is of a broker that joins a cluster and has not been admitted yet: it may not found one of its own.
    pub joining: bool,
}

/// Why an identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system refused.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The file is not in order.
    #[error("{}: {reason}", file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A newer release wrote the directory.
    #[error("{}: format version {found} is newer than {FORMAT_VERSION}, the newest that this release reads", file.display())]
    TooNew {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl DirectoryIdentity {
    /// A new identity with a random directory id.
    pub fn generate(cluster_id: String, broker_id: BrokerId) -> DirectoryIdentity {
        DirectoryIdentity {
            version: FORMAT_VERSION,
            cluster_id,
            directory_id: Uuid::new_v4(),
            broker_id,
            joining: false,
        }
    }

    /// Reads the identity; `None` if the directory has none yet. Blocks.
    pub fn load(
        fs: &dyn FileSystem,
        directory: &Path,
    ) -> Result<Option<DirectoryIdentity>, IdentityError> {
        let path = directory.join(FILE);
        let failed = |error| IdentityError::Io {
            file: path.clone(),
            error,
        };
        let invalid = |reason: String| IdentityError::Invalid {
            file: path.clone(),
            reason,
        };
        let file = match fs.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match first_data(fs, directory).map_err(failed)? {
                    None => Ok(None),
                    Some(data) => Err(invalid(format!(
                        "is missing, but {data} is there: whose data it is cannot be known. Put the file back from a \
                         copy of the directory, or begin with an empty directory"
                    ))),
                };
            }
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = vec![0; FILE_BYTES_MAX];
        let read = file.read_at(&mut bytes, 0).map_err(failed)?;
        bytes.truncate(read);
        let text = String::from_utf8(bytes).map_err(|_| invalid("is not text".to_owned()))?;
        let version = number(&text, "version").map_err(invalid)?;
        if version == 0 {
            return Err(invalid("version 0 was never written".to_owned()));
        }
        if version > FORMAT_VERSION {
            return Err(IdentityError::TooNew {
                file: path,
                found: version,
            });
        }
        parse(&text, version).map(Some).map_err(invalid)
    }

    /// Writes the identity durably. Blocks.
    pub fn store(&self, fs: &dyn FileSystem, directory: &Path) -> Result<(), IdentityError> {
        let path = directory.join(FILE);
        let failed = |error| IdentityError::Io {
            file: path.clone(),
            error,
        };
        if self.cluster_id.is_empty()
            || self
                .cluster_id
                .chars()
                .any(|c| c.is_control() || c.is_whitespace())
        {
            let reason = format!("cluster.id {:?} is empty or has spaces", self.cluster_id);
            return Err(IdentityError::Invalid { file: path, reason });
        }
        fs.create_dir_all(directory).map_err(failed)?;
        let temporary = directory.join(TEMPORARY);
        let file = fs
            .open(&temporary, OpenMode::CreateOrOpen)
            .map_err(failed)?;
        file.set_len(0).map_err(failed)?;
        file.write_at(&[IoSlice::new(self.to_text().as_bytes())], 0)
            .map_err(failed)?;
        file.sync_data(SyncPoint::IdentityContents)
            .map_err(failed)?;
        fs.rename(&temporary, &path).map_err(failed)?;
        fs.sync_dir(directory, SyncPoint::IdentityName)
            .map_err(failed)
    }

    fn to_text(&self) -> String {
        let joining = if self.joining { "joining=true\n" } else { "" };
        format!(
            "version={}\ncluster.id={}\ndirectory.id={}\nbroker.id={}\n{joining}",
            self.version, self.cluster_id, self.directory_id, self.broker_id
        )
    }
}

/// Something in the directory that is written only after the identity.
fn first_data(fs: &dyn FileSystem, directory: &Path) -> io::Result<Option<String>> {
    for folder in ["journal", "kv", "topics"] {
        let path = directory.join(folder);
        if fs.exists(&path)?
            && let Some(name) = fs.list(&path)?.first()
        {
            return Ok(Some(format!("{folder}/{name}")));
        }
    }
    Ok(None)
}

fn parse(text: &str, version: u32) -> Result<DirectoryIdentity, String> {
    let directory_id = value(text, "directory.id")?;
    Ok(DirectoryIdentity {
        version,
        cluster_id: value(text, "cluster.id")?.to_owned(),
        directory_id: Uuid::parse_str(directory_id)
            .map_err(|_| format!("directory.id {directory_id:?} is no UUID"))?,
        broker_id: BrokerId(number(text, "broker.id")?),
        joining: value(text, "joining").is_ok_and(|value| value == "true"),
    })
}

fn value<'a>(text: &'a str, key: &str) -> Result<&'a str, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find_map(|(name, value)| (name.trim() == key).then_some(value.trim()))
        .filter(|value| !value.is_empty())
        .ok_or_else(|| format!("has no {key}"))
}

fn number<T: std::str::FromStr>(text: &str, key: &str) -> Result<T, String> {
    let text = value(text, key)?;
    text.parse()
        .map_err(|_| format!("{key} {text:?} is not a number in range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::HostileFs;

    fn write(fs: &HostileFs, text: &str) {
        fs.create_dir_all(Path::new("/data")).expect("make");
        let file = fs
            .open(Path::new("/data/meta.properties"), OpenMode::CreateOrOpen)
            .expect("open");
        file.set_len(0).expect("cut");
        file.write_at(&[IoSlice::new(text.as_bytes())], 0)
            .expect("write");
    }

    #[test]
    fn identity_is_read_back_after_power_loss() {
        let fs = HostileFs::new(7);
        let directory = Path::new("/data");
        assert_eq!(DirectoryIdentity::load(&fs, directory).expect("load"), None);
        let identity = DirectoryIdentity::generate("c1".to_owned(), BrokerId(3));
        fs.create_dir_all(directory).expect("make");
        fs.sync_dir(Path::new("/"), SyncPoint::DataDirectory)
            .expect("sync");
        identity.store(&fs, directory).expect("store");
        fs.power_loss(1);
        assert_eq!(
            DirectoryIdentity::load(&fs, directory).expect("load"),
            Some(identity)
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let fs = HostileFs::new(7);
        let id = "directory.id=67e55044-10b1-426f-9247-bb680e5fe0c8\n";
        for (text, expected) in [
            (
                format!("version=2\ncluster.id=c\n{id}broker.id=1\n"),
                "newer",
            ),
            (format!("version=1\n{id}broker.id=1\n"), "cluster.id"),
            (
                format!("version=1\ncluster.id=c\n{id}broker.id=x\n"),
                "broker.id",
            ),
            (
                "version=1\ncluster.id=c\ndirectory.id=7\nbroker.id=1\n".to_owned(),
                "UUID",
            ),
        ] {
            write(&fs, &text);
            let error = DirectoryIdentity::load(&fs, Path::new("/data"))
                .expect_err("refused")
                .to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("/data/meta.properties"), "{error}");
        }
    }

    #[test]
    fn data_without_an_identity_gets_no_other_one() {
        let (fs, directory) = (HostileFs::new(7), Path::new("/data"));
        fs.create_dir_all(&directory.join("topics")).expect("make");
        let found = DirectoryIdentity::load(&fs, directory).expect("nothing is there yet");
        assert_eq!(found, None);
        fs.create_dir_all(&directory.join("topics/a-0.1"))
            .expect("make");
        let error = DirectoryIdentity::load(&fs, directory).expect_err("refused");
        let text = error.to_string();
        assert!(
            text.contains("meta.properties: is missing, but topics/a-0.1"),
            "{text}"
        );
    }

    #[test]
    fn a_cluster_id_that_would_not_be_read_back_is_refused() {
        let fs = HostileFs::new(7);
        let identity = DirectoryIdentity::generate("a\nb".to_owned(), BrokerId(0));
        assert!(identity.store(&fs, Path::new("/data")).is_err());
    }
}
