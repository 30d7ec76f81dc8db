//! From settings to [`BrokerConfig`]: aliases, units, and the checks that span several properties.
//!
//! Pure but for the machine's host name, which stands in for a listener on all interfaces. Reads settings by name, once;
//! a test builds the configuration from the defaults, so that no name here can be missing from the tables.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidelog_protocol::types::BrokerId;
use tidelog_replication::{CompactionOptions, ThrottleRates};
use tidelog_storage::journal::Durability;

use super::address::{HostPort, Listener, parse_listeners, parse_protocol_map};
use super::broker_config::{
    BrokerConfig, FetchConfig, GroupsConfig, LogFormat, LogTasksConfig, NetworkConfig,
    OffsetsConfig, ProcessConfig, ReplicaSelector, ReplicationConfig, StorageConfig, TopicDefaults,
};
use super::definition::Value;
use super::settings::{ConfigError, Setting, Settings};
use super::sources::Origin;

/// Memory for requests where `queued.max.request.bytes` is -1.
const REQUEST_MEMORY_BYTES_DEFAULT: usize = 512 << 20;

/// Builds the typed configuration, or says what does not fit together.
pub fn assemble(settings: &Settings) -> Result<BrokerConfig, Vec<ConfigError>> {
    let reader = Reader { settings };
    let mut errors = Vec::new();
    let data_dir = or_note(data_dir(&reader), &mut errors);
    let network = or_note(network(&reader), &mut errors);
    let process = or_note(process(&reader), &mut errors);
    check_pairs(&reader, &mut errors);
    check_logs(&reader, &mut errors);
    match (data_dir, network, process) {
        (Some(data_dir), Some(network), Some(process)) if errors.is_empty() => Ok(BrokerConfig {
            node_id: BrokerId(reader.int("node.id")),
            rack: reader
                .text("broker.rack")
                .filter(|rack| !rack.is_empty())
                .map(Arc::from),
            data_dir,
            network,
            process,
            topics: TopicDefaults {
                num_partitions: reader.int("num.partitions"),
                replication_factor: reader
                    .number("default.replication.factor")
                    .and_then(|replicas| i16::try_from(replicas).ok()),
                auto_create: reader.bool("auto.create.topics.enable"),
                delete: reader.bool("delete.topic.enable"),
            },
            log: LogTasksConfig {
                retention_check_interval: reader.millis("log.retention.check.interval.ms"),
                compaction: compaction(&reader),
            },
            storage: storage(&reader),
            replication: ReplicationConfig {
                request_timeout: reader.millis("request.timeout.ms"),
                rebalance_on_join: reader.text("auto.rebalance") == Some("on_join"),
                session_timeout: reader.millis("broker.session.timeout.ms"),
                replica_lag_max: reader.millis("replica.lag.time.max.ms"),
                throttle_rates: throttle_rates(&reader),
                leader_rebalance_interval: (reader.bool("auto.leader.rebalance.enable"))
                    .then(|| reader.seconds("leader.imbalance.check.interval.seconds")),
                hibernation_idle: (reader.number("partition.hibernation.idle.ms"))
                    .and_then(|idle| u64::try_from(idle).ok())
                    .map(Duration::from_millis),
            },
            groups: GroupsConfig {
                initial_rebalance_delay: reader.millis("group.initial.rebalance.delay.ms"),
                min_session_timeout: reader.millis("group.min.session.timeout.ms"),
                max_session_timeout: reader.millis("group.max.session.timeout.ms"),
                max_size: reader.size("group.max.size"),
            },
            offsets: offsets(&reader),
            fetch: FetchConfig {
                response_bytes_max: reader.size("fetch.max.bytes"),
                session_slots: reader.size("max.incremental.fetch.session.cache.slots"),
                replica_selector: replica_selector(&reader),
                describe_partitions_max: reader.size("max.request.partition.size.limit"),
            },
        }),
        _ => Err(errors),
    }
}

/// The word of `durability` and `log.durability` as storage knows it.
pub fn parse_durability(word: &str) -> Durability {
    if word == "os" {
        Durability::Os
    } else {
        Durability::Sync
    }
}

/// The largest number stands for no limit.
fn throttle_rates(reader: &Reader<'_>) -> ThrottleRates {
    let rate = |name| {
        let rate = reader.number(name).filter(|rate| *rate < i64::MAX);
        rate.and_then(|rate| u64::try_from(rate).ok())
    };
    ThrottleRates {
        leader: rate("leader.replication.throttled.rate"),
        follower: rate("follower.replication.throttled.rate"),
    }
}

fn replica_selector(reader: &Reader<'_>) -> ReplicaSelector {
    match reader.text("replica.selector.class") {
        Some(class) if class.ends_with("RackAwareReplicaSelector") => ReplicaSelector::RackAware,
        _ => ReplicaSelector::Leader,
    }
}

fn compaction(reader: &Reader<'_>) -> CompactionOptions {
    let enabled = reader.bool("log.cleaner.enable");
    CompactionOptions {
        threads: if enabled {
            reader.size("log.cleaner.threads")
        } else {
            0
        },
        backoff: reader.millis("log.cleaner.backoff.ms"),
        map_bytes_max: reader.long_positive("log.cleaner.dedupe.buffer.size"),
        bytes_per_second: reader.double("log.cleaner.io.max.bytes.per.second"),
        ..CompactionOptions::default()
    }
}

fn storage(reader: &Reader<'_>) -> StorageConfig {
    StorageConfig {
        journal_file_bytes: reader.long_positive("journal.file.bytes"),
        journal_files_min: reader.u32("journal.files.min"),
        journal_bytes_max: reader.long_positive("journal.bytes.max"),
        cache_bytes: reader.long_positive("log.cache.bytes"),
        open_segment_files_max: reader
            .number("open.segment.files.max")
            .map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        disk_reserve_bytes: reader.long_positive("disk.reserve.bytes"),
        disk_reserve_percent: reader.double("disk.reserve.percent"),
    }
}

fn offsets(reader: &Reader<'_>) -> OffsetsConfig {
    const SEGMENT_BYTES_MIN: i32 = 1 << 20;
    let retention_minutes = reader.long_positive("offsets.retention.minutes");
    OffsetsConfig {
        metadata_bytes_max: reader.size("offset.metadata.max.bytes"),
        retention: Duration::from_secs(retention_minutes * 60),
        retention_check_interval: reader.millis("offsets.retention.check.interval.ms"),
        topic_num_partitions: reader.int("offsets.topic.num.partitions"),
        topic_replication_factor: reader.short("offsets.topic.replication.factor"),
        topic_segment_bytes: reader
            .int("offsets.topic.segment.bytes")
            .max(SEGMENT_BYTES_MIN),
    }
}

fn process(reader: &Reader<'_>) -> Result<ProcessConfig, ConfigError> {
    let request_bytes_max = reader.size("socket.request.max.bytes");
    let request_memory_bytes = match reader
        .number("queued.max.request.bytes")
        .and_then(|n| usize::try_from(n).ok())
    {
        Some(bytes) if bytes < request_bytes_max => {
            return Err(reader.error(
                "queued.max.request.bytes",
                format!("queued.max.request.bytes ({bytes}) is less than socket.request.max.bytes ({request_bytes_max})"),
            ));
        }
        Some(bytes) => bytes,
        None => REQUEST_MEMORY_BYTES_DEFAULT.max(request_bytes_max),
    };
    Ok(ProcessConfig {
        log_format: if reader.text("log.format") == Some("json") {
            LogFormat::Json
        } else {
            LogFormat::Plain
        },
        log_level: reader.text("log.level").unwrap_or_default().to_owned(),
        shutdown_timeout: reader.millis("shutdown.timeout.ms"),
        request_memory_bytes,
    })
}

/// `log.dirs` before `log.dir` where their sources are equally strong.
fn data_dir(reader: &Reader<'_>) -> Result<PathBuf, ConfigError> {
    let has_dirs = reader.value("log.dirs").is_some();
    let name = match reader.origin("log.dir").strength() > reader.origin("log.dirs").strength()
        || !has_dirs
    {
        true => "log.dir",
        false => "log.dirs",
    };
    match reader.list(name).as_slice() {
        [dir] if !dir.is_empty() => Ok(PathBuf::from(dir)),
        dirs => Err(reader.error(
            name,
            format!(
                "{name} must name one data directory, not {}; Tidelog uses one per broker",
                dirs.len()
            ),
        )),
    }
}

fn network(reader: &Reader<'_>) -> Result<NetworkConfig, ConfigError> {
    let roles = reader.list("process.roles");
    if !roles.is_empty() && !roles.iter().any(|role| role == "broker") {
        return Err(reader.error(
            "process.roles",
            "process.roles has no 'broker'; Tidelog has no other roles".to_owned(),
        ));
    }
    let protocols = parse_protocol_map(&reader.list("listener.security.protocol.map"))
        .map_err(|reason| reader.error("listener.security.protocol.map", reason))?;
    let controllers = reader.list("controller.listener.names");
    let listeners = parse_listeners(&reader.list("listeners"), &protocols, &controllers)
        .map_err(|reason| reader.error("listeners", reason))?;
    if listeners.is_empty() {
        return Err(reader.error(
            "listeners",
            "listeners names no listener for clients".to_owned(),
        ));
    }
    for (i, a) in listeners.iter().enumerate() {
        if a.address.port != 0 && listeners.iter().skip(i + 1).any(|b| b.address == a.address) {
            return Err(reader.error(
                "listeners",
                format!("{} is used by two listeners", a.address),
            ));
        }
    }
    let advertised = parse_listeners(
        &reader.list("advertised.listeners"),
        &protocols,
        &controllers,
    )
    .map_err(|reason| reader.error("advertised.listeners", reason))?;
    let advertised_listeners = advertise(reader, &listeners, advertised)?;
    let peers = peers(reader)?;
    Ok(NetworkConfig {
        inter_broker_listener_name: inter_broker_name(reader, &listeners)?,
        listeners,
        advertised_listeners,
        http_listeners: http_listeners(reader)?,
        inter_broker_listener: peers.listener,
        inter_broker_advertised: peers.advertised,
        bootstrap_servers: peers.contacts,
        cluster_secret_file: reader
            .text("cluster.secret.file")
            .filter(|file| !file.is_empty())
            .map(PathBuf::from),
        max_connections: reader.size("max.connections"),
        max_connections_per_ip: reader.size("max.connections.per.ip"),
        max_connections_per_ip_overrides: ip_overrides(reader)?,
        connections_max_idle: reader
            .number("connections.max.idle.ms")
            .and_then(|ms| u64::try_from(ms).ok())
            .map(Duration::from_millis),
        request_bytes_max: reader.size("socket.request.max.bytes"),
        listen_backlog: reader.u32("socket.listen.backlog.size"),
    })
}

/// What a broker is told of the others.
struct PeerAddresses {
    listener: Option<HostPort>,
    advertised: Option<HostPort>,
    contacts: Vec<HostPort>,
}

fn peers(reader: &Reader<'_>) -> Result<PeerAddresses, ConfigError> {
    let address = |property: &str| match reader.text(property).filter(|text| !text.is_empty()) {
        Some(text) => HostPort::parse(text)
            .map(Some)
            .map_err(|reason| reader.error(property, reason)),
        None => Ok(None),
    };
    let (property, advertised) = ("inter.broker.listener", "inter.broker.advertised.listener");
    let listener = address(property)?;
    let advertised_address = address(advertised)?;
    let told = advertised_address.as_ref().or(listener.as_ref());
    if told.is_some_and(HostPort::is_unspecified) {
        let reason = format!("other brokers cannot connect to all interfaces: set {advertised}");
        return Err(reader.error(advertised, reason));
    }
    let bootstrap = "cluster.join";
    let contacts = reader
        .list(bootstrap)
        .iter()
        .map(|text| HostPort::parse(text))
        .collect();
    let contacts: Vec<HostPort> =
        Result::map_err(contacts, |reason: String| reader.error(bootstrap, reason))?;
    if !contacts.is_empty() && listener.is_none() {
        let reason = format!("a broker that joins others must be reached by them: set {property}");
        return Err(reader.error(property, reason));
    }
    Ok(PeerAddresses {
        listener,
        advertised: advertised_address,
        contacts,
    })
}

/// One advertised address for each listener.
fn advertise(
    reader: &Reader<'_>,
    listeners: &[Listener],
    advertised: Vec<Listener>,
) -> Result<Vec<Listener>, ConfigError> {
    let error = |reason: String| reader.error("advertised.listeners", reason);
    for given in &advertised {
        if !listeners.iter().any(|l| l.name == given.name) {
            return Err(error(format!(
                "advertised.listeners has '{}', which listeners does not have",
                given.name
            )));
        }
        if given.address.is_unspecified() && !given.address.host.is_empty() {
            return Err(error(format!(
                "clients cannot connect to {}: advertise an address that they reach",
                given.address
            )));
        }
    }
    let resolve = |listener: &Listener| {
        let given = advertised
            .iter()
            .find(|a| a.name == listener.name)
            .unwrap_or(listener);
        let mut resolved = given.clone();
        if given.address.host.is_empty() {
            resolved.address.host = host_name();
        } else if given.address.is_unspecified() {
            return Err(error(format!(
                "clients cannot connect to {}: set advertised.listeners to an address that they reach",
                given.address
            )));
        }
        Ok(resolved)
    };
    listeners.iter().map(resolve).collect()
}

fn host_name() -> Arc<str> {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    if name.is_empty() {
        Arc::from("localhost")
    } else {
        Arc::from(name)
    }
}

fn inter_broker_name(reader: &Reader<'_>, listeners: &[Listener]) -> Result<Arc<str>, ConfigError> {
    let property = "inter.broker.listener.name";
    match reader.text(property).filter(|name| !name.is_empty()) {
        Some(name) => {
            let found = listeners.iter().find(|l| l.name.eq_ignore_ascii_case(name));
            let missing = || {
                reader.error(
                    property,
                    format!("{property} is '{name}', which listeners does not have"),
                )
            };
            Ok(found.ok_or_else(missing)?.name.clone())
        }
        None => Ok(listeners
            .first()
            .map_or_else(|| Arc::from("PLAINTEXT"), |l| l.name.clone())),
    }
}

fn http_listeners(reader: &Reader<'_>) -> Result<Vec<HostPort>, ConfigError> {
    let parse = |entry: &String| match entry.split_once("://") {
        Some(("http", address)) => HostPort::parse(address.trim_end_matches('/')),
        Some(("https", _)) => Err("Tidelog does not have TLS yet; use http://".to_owned()),
        _ => Err(format!("'{entry}' is not of the form http://host:port")),
    };
    let entries = reader.list("http.listeners");
    entries
        .iter()
        .map(parse)
        .collect::<Result<_, _>>()
        .map_err(|reason| reader.error("http.listeners", reason))
}

fn ip_overrides(reader: &Reader<'_>) -> Result<HashMap<IpAddr, usize>, ConfigError> {
    let name = "max.connections.per.ip.overrides";
    let mut overrides = HashMap::new();
    for entry in reader
        .text(name)
        .unwrap_or_default()
        .split(',')
        .filter(|entry| !entry.trim().is_empty())
    {
        let bad = || reader.error(name, format!("'{entry}' is not of the form address:count"));
        let (address, count) = entry.trim().rsplit_once(':').ok_or_else(bad)?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        overrides.insert(
            address.parse().map_err(|_| bad())?,
            count.parse().map_err(|_| bad())?,
        );
    }
    Ok(overrides)
}

fn check_pairs(reader: &Reader<'_>, errors: &mut Vec<ConfigError>) {
    let pairs = [
        (
            "group.min.session.timeout.ms",
            "group.max.session.timeout.ms",
        ),
        ("journal.file.bytes", "journal.bytes.max"),
    ];
    for (less, more) in pairs {
        let (a, b) = (
            reader.number(less).unwrap_or_default(),
            reader.number(more).unwrap_or_default(),
        );
        if a > b {
            errors.push(reader.error(less, format!("{less} ({a}) is greater than {more} ({b})")));
        }
    }
}

fn check_logs(reader: &Reader<'_>, errors: &mut Vec<ConfigError>) {
    for name in [
        "log.retention.ms",
        "log.retention.minutes",
        "log.retention.hours",
    ] {
        if reader.number(name) == Some(0) {
            errors.push(reader.error(
                name,
                format!("{name} must be unlimited (-1) or, equal or greater than 1"),
            ));
        }
    }
    let level = reader.text("log.level").unwrap_or_default();
    if let Err(reason) = tracing_subscriber::EnvFilter::try_new(level) {
        errors.push(reader.error(
            "log.level",
            format!("log.level '{level}' is not a level: {reason}"),
        ));
    }
}

fn or_note<T>(result: Result<T, ConfigError>, errors: &mut Vec<ConfigError>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

/// Typed access to settings; names are those of the tables.
struct Reader<'a> {
    settings: &'a Settings,
}

impl<'a> Reader<'a> {
    fn setting(&self, name: &str) -> &'a Setting {
        self.settings
            .get(name)
            .expect("every name in this file is in the tables, as a test shows")
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.setting(name).value.as_ref()
    }

    fn origin(&self, name: &str) -> &'a Origin {
        &self.setting(name).origin
    }

    fn error(&self, name: &str, message: String) -> ConfigError {
        ConfigError::new(self.origin(name).clone(), message)
    }

    fn number(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            Some(Value::Integer(n)) => Some(*n),
            _ => None,
        }
    }

    fn long_positive(&self, name: &str) -> u64 {
        u64::try_from(self.number(name).unwrap_or_default()).unwrap_or_default()
    }

    fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(self.long_positive(name))
    }

    fn seconds(&self, name: &str) -> Duration {
        Duration::from_secs(self.long_positive(name))
    }

    fn size(&self, name: &str) -> usize {
        usize::try_from(self.long_positive(name)).unwrap_or(usize::MAX)
    }

    fn int(&self, name: &str) -> i32 {
        i32::try_from(self.number(name).unwrap_or_default()).unwrap_or(i32::MAX)
    }

    fn u32(&self, name: &str) -> u32 {
        u32::try_from(self.long_positive(name)).unwrap_or(u32::MAX)
    }

    fn short(&self, name: &str) -> i16 {
        i16::try_from(self.number(name).unwrap_or_default()).unwrap_or(i16::MAX)
    }

    fn double(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Double(n)) => *n,
            _ => 0.0,
        }
    }

    fn bool(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Bool(true)))
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::List(items)) => items.clone(),
            _ => Vec::new(),
        }
    }
}
