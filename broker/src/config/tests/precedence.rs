//! Sources, their order, and what is said about mistakes.

use std::time::Duration;

use tidelog_protocol::types::BrokerId;

use super::super::load::{load, print};
use super::super::sources::{LoadArgs, variable_of};
use super::super::{definition::Support, definitions};
use super::load_from;

/// The file that Kafka 4.4 ships as `config/server.properties`, without its comments.
const KAFKAS_FILE: &str = "\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=2
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

fn message(file: &str, variables: &[(&str, &str)], sets: &[&str]) -> String {
    load_from(file, variables, sets).expect_err("refused")
}

#[test]
fn defaults_make_a_broker_on_loopback() {
    let config = load(&LoadArgs::default()).expect("defaults load").config;
    assert_eq!(config.network.listeners.len(), 1);
    assert_eq!(
        config.network.listeners[0].to_string(),
        "PLAINTEXT://127.0.0.1:9092"
    );
    assert_eq!(
        config.network.advertised_listeners,
        config.network.listeners
    );
    assert_eq!(
        config.network.http_listeners[0].to_string(),
        "127.0.0.1:9094"
    );
    assert_eq!(config.node_id, BrokerId(1));
    assert_eq!(config.data_dir.to_str(), Some("data"));
    assert_eq!(
        config.groups.initial_rebalance_delay,
        Duration::from_secs(3)
    );
    assert_eq!(config.process.request_memory_bytes, 512 << 20);
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let env = [("TIDELOG_NUM_PARTITIONS", "3")];
    let partitions =
        |loaded: Result<super::Loaded, String>| loaded.expect("loads").config.topics.num_partitions;
    assert_eq!(partitions(load_from("", &[], &[])), 1);
    assert_eq!(partitions(load_from("num.partitions=2", &[], &[])), 2);
    assert_eq!(partitions(load_from("num.partitions=2", &env, &[])), 3);
    assert_eq!(
        partitions(load_from("num.partitions=2", &env, &["num.partitions=4"])),
        4
    );
    assert_eq!(
        partitions(load_from(
            "",
            &env,
            &["num.partitions=4", "num.partitions=5"]
        )),
        5
    );
    assert_eq!(
        partitions(load_from("num.partitions=6\nnum.partitions=7", &[], &[])),
        7
    );
}

#[test]
fn every_property_is_reachable_from_every_source() {
    let sound = |loaded: Result<super::Loaded, String>| loaded.expect("loads").settings;
    for definition in definitions::all() {
        // A secret has no default to repeat, null cannot be written, and broker.id=-1 means "not set".
        if definition.name == "broker.id" {
            continue;
        }
        let Some(default) = definition.default else {
            continue;
        };
        let line = format!("{}={default}", definition.name);
        let from_file = sound(load_from(&line, &[], &[]));
        let from_variable = sound(load_from(
            "",
            &[(&variable_of(definition.name), default)],
            &[],
        ));
        let from_flag = sound(load_from("", &[], &[&line]));
        let origins = [from_file, from_variable, from_flag].map(|settings| {
            settings
                .get(definition.name)
                .expect("defined")
                .origin
                .to_string()
        });
        let expected = [
            "server.properties:1".to_owned(),
            format!("environment variable {}", variable_of(definition.name)),
            "--set".to_owned(),
        ];
        assert!(origins[0].ends_with(&expected[0]), "{origins:?}");
        assert_eq!(origins[1..], expected[1..]);
    }
}

#[test]
fn data_dir_flag_is_log_dirs() {
    let args = LoadArgs {
        data_dir: Some("/tmp/x".into()),
        sets: vec!["log.dirs=/tmp/y".to_owned()],
        environment: vec![("TIDELOG_LOG_DIR".to_owned(), "/tmp/z".to_owned())],
        ..LoadArgs::default()
    };
    assert_eq!(
        load(&args).expect("loads").config.data_dir.to_str(),
        Some("/tmp/x")
    );
    let stronger =
        load_from("log.dirs=/tmp/y", &[("TIDELOG_LOG_DIR", "/tmp/z")], &[]).expect("loads");
    assert_eq!(stronger.config.data_dir.to_str(), Some("/tmp/z"));
    let both = load_from("log.dirs=/tmp/y\nlog.dir=/tmp/z", &[], &[]).expect("loads");
    assert_eq!(both.config.data_dir.to_str(), Some("/tmp/y"));
    assert!(message("log.dirs=/a,/b", &[], &[]).contains("one data directory"));
}

#[test]
fn node_id_and_its_older_name() {
    let id = |file: &str, sets: &[&str]| {
        load_from(file, &[], sets).map(|loaded| loaded.config.node_id.0)
    };
    assert_eq!(id("broker.id=7", &[]), Ok(7));
    assert_eq!(id("node.id=8", &[]), Ok(8));
    assert_eq!(id("node.id=8", &["broker.id=9"]), Ok(9));
    assert_eq!(id("broker.id=7", &["node.id=8"]), Ok(8));
    assert_eq!(id("broker.id=7\nnode.id=7", &[]), Ok(7));
    assert!(
        id("broker.id=7\nnode.id=8", &[])
            .unwrap_err()
            .contains("disagree")
    );
}

#[test]
fn kafkas_own_file_starts_a_broker() {
    let loaded = load_from(KAFKAS_FILE, &[], &[]).expect("loads");
    let names: Vec<_> = loaded
        .config
        .network
        .listeners
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["PLAINTEXT://:9092"]);
    assert_eq!(
        loaded.config.network.advertised_listeners[0].to_string(),
        "PLAINTEXT://localhost:9092"
    );
    assert_eq!(loaded.config.offsets.topic_replication_factor, 1);
    assert!(
        loaded
            .warnings
            .iter()
            .any(|w| w.contains("num.io.threads has no effect")),
        "{:?}",
        loaded.warnings
    );
    assert!(
        loaded
            .warnings
            .iter()
            .any(|w| w.contains("reachable from other machines")),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn mistakes_name_key_place_and_remedy() {
    let table: &[(&str, &str)] = &[
        (
            "num.partition=1",
            "server.properties:1: unknown property 'num.partition'; did you mean 'num.partitions'?",
        ),
        (
            "# c\nlog.retention.sm=1",
            "server.properties:2: unknown property 'log.retention.sm'; did you mean 'log.retention.ms'?",
        ),
        ("zzz=1", "server.properties:1: unknown property 'zzz'"),
        (
            "num.partitions=many",
            "server.properties:1: Invalid value many for configuration num.partitions: Not a number of type INT",
        ),
        (
            "num.partitions=0",
            "server.properties:1: Invalid value 0 for configuration num.partitions: Value must be at least 1",
        ),
        (
            "auto.create.topics.enable=yes",
            "server.properties:1: Invalid value yes for configuration auto.create.topics.enable: Expected value to be either true or false",
        ),
        (
            "compression.type=brotli",
            "server.properties:1: Invalid value brotli for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        (
            "ssl.keystore.password=hunter2",
            "server.properties:1: Invalid value [hidden] for configuration ssl.keystore.password: Tidelog does not have TLS yet.",
        ),
        (
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "server.properties:1: Invalid value org.apache.kafka.metadata.authorizer.StandardAuthorizer for configuration authorizer.class.name: Tidelog does not have authentication and authorization yet.",
        ),
        (
            "listener.name.internal.ssl.keystore.location=x",
            "server.properties:1: property 'listener.name.internal.ssl.keystore.location' is not supported: settings of single listeners are not built; set the property without the prefix",
        ),
        (
            "log.retention.ms=0",
            "server.properties:1: log.retention.ms must be unlimited (-1) or, equal or greater than 1",
        ),
        ("a=\\u12", "server.properties:1: '\\u12' is not a character"),
        (
            "listeners=SSL://:9093",
            "server.properties:1: listener 'SSL' has security protocol 'SSL', which Tidelog does not have yet; only PLAINTEXT is",
        ),
        (
            "listeners=INTERNAL://:9093",
            "server.properties:1: listener name 'INTERNAL' is not in listener.security.protocol.map",
        ),
        (
            "listeners=PLAINTEXT://h",
            "server.properties:1: 'h' is not of the form host:port",
        ),
        (
            "listeners=PLAINTEXT://0.0.0.0:9092",
            "clients cannot connect to 0.0.0.0:9092: set advertised.listeners to an address that they reach",
        ),
        (
            "process.roles=controller",
            "server.properties:1: process.roles has no 'broker'; Tidelog has no other roles",
        ),
        (
            "queued.max.request.bytes=1000",
            "server.properties:1: queued.max.request.bytes (1000) is less than socket.request.max.bytes (104857600)",
        ),
    ];
    for (file, expected) in table {
        assert_eq!(message(file, &[], &[]), *expected, "{file}");
    }
    assert_eq!(
        message("", &[("TIDELOG_NUM_PARTITION", "1")], &[]),
        "environment variable TIDELOG_NUM_PARTITION: no property is called so (variables that begin with TIDELOG_ are read as properties); did you mean 'TIDELOG_NUM_PARTITIONS'?"
    );
    assert_eq!(
        message("", &[], &["num.partitions"]),
        "--set: 'num.partitions' is not of the form name=value"
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = message(
        "num.partition=1\nnode.id=-3",
        &[("TIDELOG_LOG_FORMAT", "xml")],
        &["a"],
    );
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn missing_file_is_named() {
    let args = LoadArgs {
        config_file: Some("/nonexistent/server.properties".into()),
        ..LoadArgs::default()
    };
    let text = load(&args).expect_err("no such file").to_string();
    assert!(
        text.starts_with("--config: cannot read '/nonexistent/server.properties': No such file"),
        "{text}"
    );
}

#[test]
fn properties_of_older_kafka_are_ignored_with_a_warning() {
    let loaded = load_from(
        "zookeeper.connect=localhost:2181\ninter.broker.protocol.version=3.9",
        &[],
        &[],
    )
    .expect("loads");
    assert_eq!(loaded.warnings.len(), 2);
}

#[test]
fn printed_configuration_loads_again() {
    let loaded = load_from(
        "num.partitions=3\nbroker.rack=a b\\\\c",
        &[],
        &["log.format=json"],
    )
    .expect("loads");
    let printed = print(&loaded.settings);
    assert!(
        printed.contains("server.properties:1\nnum.partitions=3\n"),
        "{printed}"
    );
    assert!(
        printed.contains("# from --set\nlog.format=json\n"),
        "{printed}"
    );
    let again = load_from(&printed, &[], &[]).expect("loads");
    assert_eq!(again.config, loaded.config);
    let used = definitions::all().filter(|d| d.support == Support::Used && d.default.is_some());
    for definition in used {
        assert!(
            printed.contains(&format!("\n{}=", definition.name)),
            "{} is missing",
            definition.name
        );
    }
}

#[test]
fn several_listeners_each_with_its_address() {
    let file = "listeners=PLAINTEXT://127.0.0.1:0,INTERNAL://[::1]:9192\n\
        listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT\n\
        advertised.listeners=INTERNAL://broker-1.example:19192\ninter.broker.listener.name=internal";
    let network = load_from(file, &[], &[]).expect("loads").config.network;
    let shown = |listeners: &[super::super::Listener]| {
        listeners
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        shown(&network.listeners),
        ["PLAINTEXT://127.0.0.1:0", "INTERNAL://[::1]:9192"]
    );
    assert_eq!(
        shown(&network.advertised_listeners),
        [
            "PLAINTEXT://127.0.0.1:0",
            "INTERNAL://broker-1.example:19192"
        ]
    );
    assert_eq!(&*network.inter_broker_listener_name, "INTERNAL");
}

#[test]
fn connection_limits_of_single_addresses() {
    let set = ["max.connections.per.ip.overrides=10.0.0.1:5,[::1]:7"];
    let network = load_from("", &[], &set).expect("loads").config.network;
    assert_eq!(
        network.max_connections_per_ip_overrides[&"10.0.0.1".parse().expect("an address")],
        5
    );
    assert_eq!(
        network.max_connections_per_ip_overrides[&"::1".parse().expect("an address")],
        7
    );
    assert!(load_from("", &[], &["max.connections.per.ip.overrides=host:5"]).is_err());
}

#[test]
fn the_selector_of_replicas_has_kafkas_name_and_class_and_short_ones() {
    use super::super::ReplicaSelector::{Leader, RackAware};
    let selected = |file: &str, variables: &[(&str, &str)]| {
        load_from(file, variables, &[]).map(|loaded| loaded.config.fetch.replica_selector)
    };
    assert_eq!(selected("", &[]), Ok(Leader));
    let package = "org.apache.kafka.common.replica";
    for name in ["replica.selector.class", "replica.selector"] {
        for prefix in [String::new(), format!("{package}.")] {
            let set = |class: &str| selected(&format!("{name}={prefix}{class}"), &[]);
            assert_eq!(set("RackAwareReplicaSelector"), Ok(RackAware));
            assert_eq!(set("LeaderSelector"), Ok(Leader));
        }
    }
    for variable in ["TIDELOG_REPLICA_SELECTOR", "TIDELOG_REPLICA_SELECTOR_CLASS"] {
        let set = selected("", &[(variable, "RackAwareReplicaSelector")]);
        assert_eq!(set, Ok(RackAware), "{variable}");
    }
    let unknown = message("replica.selector=com.example.Nearest", &[], &[]);
    let expected = "Invalid value com.example.Nearest for configuration replica.selector.class: String must be one of";
    assert!(unknown.contains(expected), "{unknown}");
    assert!(unknown.contains("RackAwareReplicaSelector"), "{unknown}");
}
