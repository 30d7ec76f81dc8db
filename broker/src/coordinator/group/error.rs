//! Why the group machine refuses a request, and the Kafka code of each reason.

use tidelog_protocol::ErrorCode;

/// A refusal. Kafka's codes are assigned here and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The group name is empty or not allowed.
    #[error("the group id is invalid")]
    InvalidGroupId,
    /// The session time-out is outside `group.min.session.timeout.ms`..`group.max.session.timeout.ms`.
    #[error("the session timeout is not within the range allowed by the broker")]
    InvalidSessionTimeout,
    /// The member is not part of the group.
    #[error("the coordinator is not aware of this member")]
    UnknownMember,
    /// The member was given an id and is to join again with it.
    #[error(
        "the group member needs to have a valid member id before actually entering a consumer group"
    )]
    MemberIdRequired,
    /// Another member has taken this instance id.
    #[error("the instance id is used by another member id")]
    FencedInstance,
    /// The request names another generation than the current one.
    #[error("specified group generation id is not valid")]
    IllegalGeneration,
    /// No protocol, protocol type or protocol name in common with the group.
    #[error(
        "the group member's supported protocols are incompatible with those of existing members"
    )]
    InconsistentProtocol,
    /// The group has `group.max.size` members.
    #[error("the group has reached its maximum size")]
    MaxSizeReached,
    /// The group rebalances; join again.
    #[error("the group is rebalancing, so a rejoin is needed")]
    RebalanceInProgress,
    /// No such group.
    #[error("the group id does not exist")]
    GroupNotFound,
    /// The group has members.
    #[error("the group is not empty")]
    NonEmptyGroup,
    /// A live member is subscribed to the topic.
    #[error("the group is subscribed to the topic")]
    SubscribedToTopic,
    /// The metadata of a commit is longer than `offset.metadata.max.bytes`.
    #[error("the metadata field of the offset request was too large")]
    MetadataTooLarge,
    /// The group is being removed, or the broker shuts down; ask again.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// Another broker coordinates the group now.
    #[error("this is not the correct coordinator")]
    NotCoordinator,
    /// The state of the group is being read back.
    #[error("the coordinator is loading and hence can't process requests")]
    LoadInProgress,
    /// The record of this change is larger than the log takes.
    #[error("the record of the group is too large to be stored")]
    RecordTooLarge,
    /// The commit is larger than the log takes.
    #[error("the committing offset data size is not valid")]
    CommitTooLarge,
    /// The change could not be stored and never will be; a person must look.
    #[error("the change could not be stored")]
    StorageFailed,
}

impl GroupError {
    /// Kafka's code for the reason.
    pub fn code(self) -> ErrorCode {
        match self {
            GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
            GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
            GroupError::UnknownMember => ErrorCode::UnknownMemberId,
            GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
            GroupError::FencedInstance => ErrorCode::FencedInstanceId,
            GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
            GroupError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
            GroupError::MaxSizeReached => ErrorCode::GroupMaxSizeReached,
            GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
            GroupError::GroupNotFound => ErrorCode::GroupIdNotFound,
            GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
            GroupError::SubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
            GroupError::MetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
            GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
            GroupError::NotCoordinator => ErrorCode::NotCoordinator,
            GroupError::LoadInProgress => ErrorCode::CoordinatorLoadInProgress,
            GroupError::CommitTooLarge => ErrorCode::InvalidCommitOffsetSize,
            GroupError::RecordTooLarge | GroupError::StorageFailed => ErrorCode::UnknownServerError,
        }
    }
}
