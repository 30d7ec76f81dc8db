//! Brokers that the metadata log names, applied or not.
//!
//! What was committed is known only once there is a leader, and a leader is elected by brokers that reach one another: after
//! all of them died at once nobody's image may say where the others are. The log does, whether its entries count or not.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::EntryPayload;
use tidelog_protocol::types::BrokerId;
use tidelog_storage::log::{EntryIndex, LogError, PartitionLog};

use crate::control::Member;
use crate::limits::APPLY_HEADERS_MAX;
use crate::metadata::command::Command;
use crate::metadata::record;
use crate::raft::codec::{self, tag};
use crate::raft::log_store::blocking;
use crate::raft::types::{GroupCommand, ReplicaId};

/// The brokers that a log registers and does not remove again, with their last addresses.
pub async fn named_in(log: Arc<PartitionLog>) -> Result<Vec<Member>, LogError> {
    blocking(move || read(&log)).await
}

fn read(log: &PartitionLog) -> Result<Vec<Member>, LogError> {
    let mut named: BTreeMap<BrokerId, Member> = BTreeMap::new();
    let bounds = log.bounds();
    let end = EntryIndex(bounds.last.index.0.saturating_add(1));
    let mut from = EntryIndex(bounds.purged.index.0.saturating_add(1));
    while from < end {
        let headers = log.headers(from, end, APPLY_HEADERS_MAX)?;
        if headers.is_empty() {
            break;
        }
        from = EntryIndex(from.0 + headers.len() as u64);
        let opaque = headers.into_iter().filter_map(|header| header.opaque);
        for (_, bytes) in opaque.filter(|(tag, _)| *tag == tag::METADATA) {
            // What cannot be read is for those to find who apply it.
            let Ok(EntryPayload::Normal(GroupCommand::Metadata(record))) =
                codec::decode_opaque(tag::METADATA, bytes)
            else {
                continue;
            };
            match record::decode(&record) {
                Ok(Command::RegisterBroker(registration)) => {
                    let replica = ReplicaId {
                        broker: registration.broker,
                        directory: registration.directory_id,
                    };
                    let address = registration.peer_address;
                    named.insert(registration.broker, Member { replica, address });
                }
                Ok(Command::UnregisterBroker { broker }) => {
                    named.remove(&broker);
                }
                _ => {}
            }
        }
    }
    Ok(named.into_values().collect())
}
