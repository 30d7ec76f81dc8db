//! OffsetCommit: who may commit in which state, and what is stored.

use super::appended::{Pending, PendingCommit};
use super::effect::{GroupRecord, Reply};
use super::error::GroupError;
use super::event::{Commit, OffsetToCommit};
use super::ids::Now;
use super::offset::CommittedOffset;
use super::state::{Group, GroupState};

use tidelog_protocol::types::TimestampMs;

impl Group {
    pub(super) fn commit(&mut self, commit: Commit, now: Now) {
        if let Err(error) = self.check_commit(&commit) {
            return self.reply(commit.token, Reply::Commit(Err(error)));
        }
        // In the classic protocol a commit is a sign of life.
        if let (GroupState::Stable | GroupState::PreparingRebalance, Some(id)) =
            (self.state, &commit.member)
        {
            self.restart_session(id, now);
        }
        let expire_timestamp = commit
            .retention_ms
            .map(|ms| TimestampMs(now.wall.0.saturating_add(ms)));
        let mut outcomes = Vec::with_capacity(commit.offsets.len());
        let mut accepted = Vec::with_capacity(commit.offsets.len());
        for (partition, wanted) in commit.offsets {
            if self.metadata_fits(&wanted) {
                let committed = CommittedOffset {
                    offset: wanted.offset,
                    leader_epoch: wanted.leader_epoch,
                    metadata: wanted.metadata,
                    commit_timestamp: now.wall,
                    expire_timestamp,
                };
                accepted.push((partition, committed));
                outcomes.push(Ok(()));
            } else {
                outcomes.push(Err(GroupError::MetadataTooLarge));
            }
        }
        if accepted.is_empty() {
            return self.reply(commit.token, Reply::Commit(Ok(outcomes)));
        }
        let records = accepted
            .iter()
            .map(|(tp, offset)| GroupRecord::Offset(tp.clone(), Some(offset.clone())))
            .collect();
        self.append(
            records,
            Pending::Commit(PendingCommit {
                token: commit.token,
                outcomes,
                offsets: accepted,
            }),
        );
    }

    fn metadata_fits(&self, wanted: &OffsetToCommit) -> bool {
        let max = self.settings.offset_metadata_max;
        wanted.metadata.len() <= max || wanted.metadata.encode_utf16().count() <= max
    }

    fn check_commit(&self, commit: &Commit) -> Result<(), GroupError> {
        let without_generation = commit.generation.0 < 0;
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if self.is_vacant() && !without_generation {
            // Older clients only know that their generation is gone.
            return Err(if commit.knows_group_not_found {
                GroupError::GroupNotFound
            } else {
                GroupError::IllegalGeneration
            });
        }
        if without_generation && self.state == GroupState::Empty {
            // A tool, or a consumer that uses the group for its offsets alone.
            return Ok(());
        }
        match &commit.member {
            Some(member) => self.validate_member(member, commit.instance.as_ref())?,
            None => return Err(GroupError::UnknownMember),
        }
        if commit.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance {
            // The member is in the new generation but has no assignment yet, so this commit is of the old one.
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// The offsets are stored, or could not be.
    pub(super) fn commit_stored(
        &mut self,
        pending: PendingCommit,
        outcome: Result<(), GroupError>,
    ) {
        let reply = match outcome {
            Ok(()) => {
                self.offsets.extend(pending.offsets);
                self.lingers = true;
                Ok(pending.outcomes)
            }
            Err(GroupError::RecordTooLarge) => Err(GroupError::CommitTooLarge),
            Err(error) => Err(error),
        };
        self.reply(pending.token, Reply::Commit(reply));
    }
}
