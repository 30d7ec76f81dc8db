//! Fields of the requests on records, partitions and the cluster.

use super::Kind::{Blob, List, Optional, Struct, Text};
use super::{
    BOOL, INT8, INT16, INT32, INT64, Schema, TOPICS_WITH_INDEXES, UUID, all, since, tagged, within,
};

pub(super) const PRODUCE: Schema = Schema {
    flexible: 9,
    fields: &[
        all("transactional_id", Text),
        all("acks", INT16),
        all("timeout_ms", INT32),
        all(
            "topic_data",
            List(&Struct(&[
                within(0, 12, "name", Text),
                since(13, "topic_id", UUID),
                all(
                    "partition_data",
                    List(&Struct(&[all("index", INT32), all("records", Blob)])),
                ),
            ])),
        ),
    ],
};

pub(super) const FETCH: Schema = Schema {
    flexible: 12,
    fields: &[
        within(0, 14, "replica_id", INT32),
        all("max_wait_ms", INT32),
        all("min_bytes", INT32),
        all("max_bytes", INT32),
        all("isolation_level", INT8),
        since(7, "session_id", INT32),
        since(7, "session_epoch", INT32),
        all(
            "topics",
            List(&Struct(&[
                within(0, 12, "topic", Text),
                since(13, "topic_id", UUID),
                all(
                    "partitions",
                    List(&Struct(&[
                        all("partition", INT32),
                        since(9, "current_leader_epoch", INT32),
                        all("fetch_offset", INT64),
                        since(12, "last_fetched_epoch", INT32),
                        since(5, "log_start_offset", INT64),
                        all("partition_max_bytes", INT32),
                        tagged(0, 17, "replica_directory_id", UUID),
                        tagged(1, 18, "high_watermark", INT64),
                    ])),
                ),
            ])),
        ),
        since(
            7,
            "forgotten_topics_data",
            List(&Struct(&[
                within(7, 12, "topic", Text),
                since(13, "topic_id", UUID),
                since(7, "partitions", List(&INT32)),
            ])),
        ),
        since(11, "rack_id", Text),
        tagged(0, 0, "cluster_id", Text),
        tagged(
            1,
            15,
            "replica_state",
            Struct(&[
                since(15, "replica_id", INT32),
                since(15, "replica_epoch", INT64),
            ]),
        ),
    ],
};

pub(super) const LIST_OFFSETS: Schema = Schema {
    flexible: 6,
    fields: &[
        all("replica_id", INT32),
        since(2, "isolation_level", INT8),
        all(
            "topics",
            List(&Struct(&[
                all("name", Text),
                all(
                    "partitions",
                    List(&Struct(&[
                        all("partition_index", INT32),
                        since(4, "current_leader_epoch", INT32),
                        all("timestamp", INT64),
                    ])),
                ),
            ])),
        ),
        since(10, "timeout_ms", INT32),
    ],
};

pub(super) const METADATA: Schema = Schema {
    flexible: 9,
    fields: &[
        all(
            "topics",
            List(&Struct(&[since(10, "topic_id", UUID), all("name", Text)])),
        ),
        since(4, "allow_auto_topic_creation", BOOL),
        within(8, 10, "include_cluster_authorized_operations", BOOL),
        since(8, "include_topic_authorized_operations", BOOL),
    ],
};

pub(super) const INIT_PRODUCER_ID: Schema = Schema {
    flexible: 2,
    fields: &[
        all("transactional_id", Text),
        all("transaction_timeout_ms", INT32),
        since(3, "producer_id", INT64),
        since(3, "producer_epoch", INT16),
    ],
};

pub(super) const OFFSET_FOR_LEADER_EPOCH: Schema = Schema {
    flexible: 4,
    fields: &[
        since(3, "replica_id", INT32),
        all(
            "topics",
            List(&Struct(&[
                all("topic", Text),
                all(
                    "partitions",
                    List(&Struct(&[
                        all("partition", INT32),
                        all("current_leader_epoch", INT32),
                        all("leader_epoch", INT32),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const API_VERSIONS: Schema = Schema {
    flexible: 3,
    fields: &[
        since(3, "client_software_name", Text),
        since(3, "client_software_version", Text),
    ],
};

pub(super) const DESCRIBE_TOPIC_PARTITIONS: Schema = Schema {
    flexible: 0,
    fields: &[
        all("topics", List(&Struct(&[all("name", Text)]))),
        all("response_partition_limit", INT32),
        all(
            "cursor",
            Optional(&[all("topic_name", Text), all("partition_index", INT32)]),
        ),
    ],
};

pub(super) const DESCRIBE_PRODUCERS: Schema = Schema {
    flexible: 0,
    fields: &[all("topics", TOPICS_WITH_INDEXES)],
};

pub(super) const DESCRIBE_CLUSTER: Schema = Schema {
    flexible: 0,
    fields: &[
        all("include_cluster_authorized_operations", BOOL),
        since(1, "endpoint_type", INT8),
        since(2, "include_fenced_brokers", BOOL),
    ],
};
