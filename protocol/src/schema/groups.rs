//! Fields of the requests on consumer groups.

use super::Kind::{Blob, List, Struct, Text};
use super::{BOOL, INT8, INT32, INT64, NEVER, Schema, TOPICS_WITH_PARTITIONS, all, since, within};

pub(super) const OFFSET_COMMIT: Schema = Schema {
    flexible: 8,
    fields: &[
        all("group_id", Text),
        all("generation_id_or_member_epoch", INT32),
        all("member_id", Text),
        since(7, "group_instance_id", Text),
        within(0, 4, "retention_time_ms", INT64),
        all(
            "topics",
            List(&Struct(&[
                all("name", Text),
                all(
                    "partitions",
                    List(&Struct(&[
                        all("partition_index", INT32),
                        all("committed_offset", INT64),
                        since(6, "committed_leader_epoch", INT32),
                        all("committed_metadata", Text),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const OFFSET_FETCH: Schema = Schema {
    flexible: 6,
    fields: &[
        within(0, 7, "group_id", Text),
        within(
            0,
            7,
            "topics",
            List(&Struct(&[
                within(0, 7, "name", Text),
                within(0, 7, "partition_indexes", List(&INT32)),
            ])),
        ),
        since(
            8,
            "groups",
            List(&Struct(&[
                since(8, "group_id", Text),
                since(9, "member_id", Text),
                since(9, "member_epoch", INT32),
                since(
                    8,
                    "topics",
                    List(&Struct(&[
                        since(8, "name", Text),
                        since(8, "partition_indexes", List(&INT32)),
                    ])),
                ),
            ])),
        ),
        since(7, "require_stable", BOOL),
    ],
};

pub(super) const FIND_COORDINATOR: Schema = Schema {
    flexible: 3,
    fields: &[
        within(0, 3, "key", Text),
        since(1, "key_type", INT8),
        since(4, "coordinator_keys", List(&Text)),
    ],
};

pub(super) const JOIN_GROUP: Schema = Schema {
    flexible: 6,
    fields: &[
        all("group_id", Text),
        all("session_timeout_ms", INT32),
        since(1, "rebalance_timeout_ms", INT32),
        all("member_id", Text),
        since(5, "group_instance_id", Text),
        all("protocol_type", Text),
        all(
            "protocols",
            List(&Struct(&[all("name", Text), all("metadata", Blob)])),
        ),
        since(8, "reason", Text),
    ],
};

pub(super) const HEARTBEAT: Schema = Schema {
    flexible: 4,
    fields: &[
        all("group_id", Text),
        all("generation_id", INT32),
        all("member_id", Text),
        since(3, "group_instance_id", Text),
    ],
};

pub(super) const LEAVE_GROUP: Schema = Schema {
    flexible: 4,
    fields: &[
        all("group_id", Text),
        within(0, 2, "member_id", Text),
        since(
            3,
            "members",
            List(&Struct(&[
                since(3, "member_id", Text),
                since(3, "group_instance_id", Text),
                since(5, "reason", Text),
            ])),
        ),
    ],
};

pub(super) const SYNC_GROUP: Schema = Schema {
    flexible: 4,
    fields: &[
        all("group_id", Text),
        all("generation_id", INT32),
        all("member_id", Text),
        since(3, "group_instance_id", Text),
        since(5, "protocol_type", Text),
        since(5, "protocol_name", Text),
        all(
            "assignments",
            List(&Struct(&[all("member_id", Text), all("assignment", Blob)])),
        ),
    ],
};

pub(super) const DESCRIBE_GROUPS: Schema = Schema {
    flexible: 5,
    fields: &[
        all("groups", List(&Text)),
        since(3, "include_authorized_operations", BOOL),
    ],
};

pub(super) const LIST_GROUPS: Schema = Schema {
    flexible: 3,
    fields: &[
        since(4, "states_filter", List(&Text)),
        since(5, "types_filter", List(&Text)),
    ],
};

pub(super) const DELETE_GROUPS: Schema = Schema {
    flexible: 2,
    fields: &[all("groups_names", List(&Text))],
};

pub(super) const OFFSET_DELETE: Schema = Schema {
    flexible: NEVER,
    fields: &[all("group_id", Text), all("topics", TOPICS_WITH_PARTITIONS)],
};
