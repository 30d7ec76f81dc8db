//! What is agreed, as nobody of the simulated knows it: all committed entries of each group, and the images that follow
//! from the controller's.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::raft::{Body, Entry, Index, Membership};
use super::world::{CONTROLLER, Group, PARTITIONS};
use crate::metadata::command::{Command, MetadataError, Outcome};
use crate::metadata::image::MetadataImage;
use crate::metadata::state::{MetadataDelta, MetadataState};
use crate::raft::types::ReplicaId;

/// What tells an entry from others.
pub type Mark = (u64, u64);

pub fn mark(entry: &Entry) -> Mark {
    let body = match &entry.body {
        Body::Blank => 1,
        Body::Record(value) => value << 2,
        Body::Command(number, _) => (number << 2) + 2,
        // A broker that was away while a new partition moved founds it with the members of later. Nobody elects it before
        // it has got what the others have.
        Body::Members(_) if entry.term == 0 => 3,
        Body::Members(members) => {
            let mut hasher = DefaultHasher::new();
            (&members.configs, &members.learners).hash(&mut hasher);
            hasher.finish() | 3
        }
    };
    (entry.term, body)
}

#[derive(Debug, Default)]
pub struct GroupLedger {
    pub entries: Vec<Mark>,
    /// The terms in which leaders committed them.
    pub committed_in: Vec<u64>,
    /// The newest committed membership.
    pub membership: Arc<Membership>,
    /// Who was elected in each term.
    pub leaders: BTreeMap<u64, ReplicaId>,
}

/// What a command came to.
#[derive(Debug)]
pub struct Applied {
    pub image: Arc<MetadataImage>,
    pub delta: MetadataDelta,
    pub outcome: Option<Result<Outcome, MetadataError>>,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    pub groups: Vec<GroupLedger>,
    metadata: MetadataState,
    /// By index of the controller's entry.
    applied: Vec<Applied>,
}

impl Ledger {
    pub fn new() -> Ledger {
        let nothing = Applied {
            image: Arc::default(),
            delta: MetadataDelta::default(),
            outcome: None,
        };
        Ledger {
            groups: (0..=PARTITIONS).map(|_| GroupLedger::default()).collect(),
            metadata: MetadataState::default(),
            applied: vec![nothing],
        }
    }

    pub fn image(&self, index: Index) -> &Arc<MetadataImage> {
        &self.applied[index as usize].image
    }

    /// The newest image that there is.
    pub fn newest(&self) -> &Arc<MetadataImage> {
        self.image(self.applied.len() as Index - 1)
    }

    pub fn applied(&self, index: Index) -> &Applied {
        &self.applied[index as usize]
    }

    /// An entry is committed that was not, by the leader of a term. Returns the command that was carried out, if one was.
    pub fn add(&mut self, group: Group, entry: &Entry, term: u64) -> Option<Arc<Command>> {
        let ledger = &mut self.groups[group];
        ledger.entries.push(mark(entry));
        ledger.committed_in.push(term);
        if let Body::Members(members) = &entry.body {
            ledger.membership = members.clone();
        }
        if group != CONTROLLER {
            return None;
        }
        let version = self.applied.len() as u64;
        let command = match &entry.body {
            Body::Command(_, command) => Some(command.clone()),
            _ => None,
        };
        let outcome = command.as_ref().map(|command| {
            let command = Command::clone(command);
            self.metadata.apply(command, version)
        });
        let image = match &command {
            Some(_) => Arc::new(self.metadata.image().clone()),
            None => self.newest().clone(),
        };
        let delta = self.metadata.take_delta();
        self.applied.push(Applied {
            image,
            delta,
            outcome,
        });
        command
    }
}
