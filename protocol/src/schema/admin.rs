//! Fields of the requests that change or describe topics, configs and the cluster.

use super::Kind::{self, List, Struct, Text};
use super::{
    BOOL, INT8, INT16, INT32, INT64, Schema, TOPICS_WITH_INDEXES, TOPICS_WITH_PARTITIONS, UUID,
    all, since, within,
};

/// Partitions, each with brokers for its replicas.
const ASSIGNMENTS: Kind = List(&Struct(&[
    all("partition_index", INT32),
    all("broker_ids", List(&INT32)),
]));

pub(super) const CREATE_TOPICS: Schema = Schema {
    flexible: 5,
    fields: &[
        all(
            "topics",
            List(&Struct(&[
                all("name", Text),
                all("num_partitions", INT32),
                all("replication_factor", INT16),
                all("assignments", ASSIGNMENTS),
                all(
                    "configs",
                    List(&Struct(&[all("name", Text), all("value", Text)])),
                ),
            ])),
        ),
        all("timeout_ms", INT32),
        all("validate_only", BOOL),
    ],
};

pub(super) const DELETE_TOPICS: Schema = Schema {
    flexible: 4,
    fields: &[
        since(
            6,
            "topics",
            List(&Struct(&[
                since(6, "name", Text),
                since(6, "topic_id", UUID),
            ])),
        ),
        within(0, 5, "topic_names", List(&Text)),
        all("timeout_ms", INT32),
    ],
};

pub(super) const DELETE_RECORDS: Schema = Schema {
    flexible: 2,
    fields: &[
        all(
            "topics",
            List(&Struct(&[
                all("name", Text),
                all(
                    "partitions",
                    List(&Struct(&[
                        all("partition_index", INT32),
                        all("offset", INT64),
                    ])),
                ),
            ])),
        ),
        all("timeout_ms", INT32),
    ],
};

pub(super) const DESCRIBE_CONFIGS: Schema = Schema {
    flexible: 4,
    fields: &[
        all(
            "resources",
            List(&Struct(&[
                all("resource_type", INT8),
                all("resource_name", Text),
                all("configuration_keys", List(&Text)),
            ])),
        ),
        all("include_synonyms", BOOL),
        since(3, "include_documentation", BOOL),
    ],
};

pub(super) const ALTER_CONFIGS: Schema = Schema {
    flexible: 2,
    fields: &[
        all(
            "resources",
            List(&Struct(&[
                all("resource_type", INT8),
                all("resource_name", Text),
                all(
                    "configs",
                    List(&Struct(&[all("name", Text), all("value", Text)])),
                ),
            ])),
        ),
        all("validate_only", BOOL),
    ],
};

pub(super) const DESCRIBE_LOG_DIRS: Schema = Schema {
    flexible: 2,
    fields: &[all("topics", TOPICS_WITH_INDEXES)],
};

pub(super) const CREATE_PARTITIONS: Schema = Schema {
    flexible: 2,
    fields: &[
        all(
            "topics",
            List(&Struct(&[
                all("name", Text),
                all("count", INT32),
                all(
                    "assignments",
                    List(&Struct(&[all("broker_ids", List(&INT32))])),
                ),
            ])),
        ),
        all("timeout_ms", INT32),
        all("validate_only", BOOL),
    ],
};

pub(super) const INCREMENTAL_ALTER_CONFIGS: Schema = Schema {
    flexible: 1,
    fields: &[
        all(
            "resources",
            List(&Struct(&[
                all("resource_type", INT8),
                all("resource_name", Text),
                all(
                    "configs",
                    List(&Struct(&[
                        all("name", Text),
                        all("config_operation", INT8),
                        all("value", Text),
                    ])),
                ),
            ])),
        ),
        all("validate_only", BOOL),
    ],
};

pub(super) const LIST_CONFIG_RESOURCES: Schema = Schema {
    flexible: 0,
    fields: &[since(1, "resource_types", List(&INT8))],
};

pub(super) const ELECT_LEADERS: Schema = Schema {
    flexible: 2,
    fields: &[
        since(1, "election_type", INT8),
        all("topic_partitions", TOPICS_WITH_INDEXES),
        all("timeout_ms", INT32),
    ],
};

pub(super) const ALTER_PARTITION_REASSIGNMENTS: Schema = Schema {
    flexible: 0,
    fields: &[
        all("timeout_ms", INT32),
        since(1, "allow_replication_factor_change", BOOL),
        all(
            "topics",
            List(&Struct(&[
                all("name", Text),
                all("partitions", ASSIGNMENTS),
            ])),
        ),
    ],
};

pub(super) const LIST_PARTITION_REASSIGNMENTS: Schema = Schema {
    flexible: 0,
    fields: &[all("timeout_ms", INT32), all("topics", TOPICS_WITH_INDEXES)],
};

pub(super) const DESCRIBE_QUORUM: Schema = Schema {
    flexible: 0,
    fields: &[all("topics", TOPICS_WITH_PARTITIONS)],
};

pub(super) const UNREGISTER_BROKER: Schema = Schema {
    flexible: 0,
    fields: &[all("broker_id", INT32)],
};

pub(super) const UPDATE_FEATURES: Schema = Schema {
    flexible: 0,
    fields: &[
        all("timeout_ms", INT32),
        all(
            "feature_updates",
            List(&Struct(&[
                all("feature", Text),
                all("max_version_level", INT16),
                within(0, 0, "allow_downgrade", BOOL),
                since(1, "upgrade_type", INT8),
            ])),
        ),
        since(1, "validate_only", BOOL),
    ],
};
