//! Topics that committed offsets point to, so that offsets go when their topic goes.
//!
//! Offsets name topics, and a name can be given to a new topic. The registry remembers which incarnation was meant
//! and compares it with the metadata whenever that changes, at a cost that depends on the topics in use only.

use std::collections::{HashMap, HashSet};
use std::fmt;

use parking_lot::Mutex;
use tidelog_protocol::types::{TopicId, TopicName};

/// Finds the current incarnation of a topic.
pub(super) type TopicLookup = Box<dyn Fn(&TopicName) -> Option<TopicId> + Send + Sync>;

/// See the module.
pub(super) struct TopicRegistry {
    lookup: TopicLookup,
    topics: Mutex<HashMap<TopicName, TopicId>>,
}

impl TopicRegistry {
    pub(super) fn new(lookup: TopicLookup) -> Self {
        TopicRegistry {
            lookup,
            topics: Mutex::default(),
        }
    }

    /// Notes topics that offsets point to. Returns those that do not exist.
    pub(super) fn note<'a>(
        &self,
        names: impl Iterator<Item = &'a TopicName>,
    ) -> HashSet<TopicName> {
        let mut missing = HashSet::new();
        let mut topics = self.topics.lock();
        for name in names {
            if topics.contains_key(name) {
                continue;
            }
            match (self.lookup)(name) {
                Some(id) => {
                    topics.insert(name.clone(), id);
                }
                None => {
                    missing.insert(name.clone());
                }
            }
        }
        missing
    }

    /// Takes out the topics whose noted incarnation is gone.
    pub(super) fn take_deleted(&self) -> HashSet<TopicName> {
        let mut deleted = HashSet::new();
        self.topics.lock().retain(|name, id| {
            let lives = (self.lookup)(name) == Some(*id);
            if !lives {
                deleted.insert(name.clone());
            }
            lives
        });
        deleted
    }
}

impl fmt::Debug for TopicRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicRegistry")
            .field("topics", &self.topics.lock().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn deleted_and_recreated_topics_are_noticed_once() {
        let cluster: Arc<Mutex<HashMap<TopicName, TopicId>>> = Arc::default();
        let names: Vec<TopicName> = ["stays", "goes", "comes-back", "never-was"]
            .map(TopicName::from)
            .to_vec();
        for (name, id) in names.iter().zip(1u128..=3) {
            cluster
                .lock()
                .insert(name.clone(), TopicId(Uuid::from_u128(id)));
        }
        let seen = cluster.clone();
        let registry = TopicRegistry::new(Box::new(move |name| seen.lock().get(name).copied()));
        assert_eq!(
            registry.note(names.iter()),
            HashSet::from([names[3].clone()])
        );
        assert!(registry.take_deleted().is_empty());
        cluster.lock().remove(&names[1]);
        cluster
            .lock()
            .insert(names[2].clone(), TopicId(Uuid::from_u128(9)));
        assert_eq!(
            registry.take_deleted(),
            HashSet::from([names[1].clone(), names[2].clone()])
        );
        assert!(registry.take_deleted().is_empty());
    }
}
