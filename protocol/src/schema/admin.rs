//! Fields of the requests that change or describe topics and configs.

use super::Kind::{List, Struct, Text};
use super::{BOOL, INT8, INT16, INT32, INT64, Schema, UUID, all, since, within};

pub(super) const CREATE_TOPICS: Schema = Schema {
    flexible: 5,
    fields: &[
        all(
            "topics",
            List(&Struct(&[
                all("name", Text),
                all("num_partitions", INT32),
                all("replication_factor", INT16),
                all(
                    "assignments",
                    List(&Struct(&[
                        all("partition_index", INT32),
                        all("broker_ids", List(&INT32)),
                    ])),
                ),
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
    fields: &[all(
        "topics",
        List(&Struct(&[
            all("topic", Text),
            all("partitions", List(&INT32)),
        ])),
    )],
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
