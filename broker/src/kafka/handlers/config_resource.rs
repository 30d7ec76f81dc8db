//! What DescribeConfigs, AlterConfigs and IncrementalAlterConfigs share: which resource a request means, and how a change
//! of it is carried out.

use std::collections::HashSet;
use std::time::Duration;

use tidelog_protocol::ErrorCode;
use tidelog_protocol::types::{BrokerId, TopicName};
use tidelog_replication::{Command, ConfigResource, MetadataImage};

use crate::config::Overrides;
use crate::config::alter::{self, AlterError, AlterOp};
use crate::kafka::context::RequestContext;
use crate::kafka::errors;
use crate::topics::drain::DRAINING;
use crate::topics::name;

/// Kafka's numbers of resource types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum ResourceType {
    /// A topic.
    Topic = 2,
    /// A broker, or with the empty name all brokers.
    Broker = 4,
    /// The loggers of a broker.
    BrokerLogger = 8,
    /// A subscription to clients' metrics.
    ClientMetrics = 16,
    /// A group.
    Group = 32,
}

/// Why a resource is refused, as the response says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Error code.
    pub code: ErrorCode,
    /// Sentence for the client.
    pub message: Option<String>,
}

impl ResourceType {
    /// The type of a number.
    pub fn of(number: i8) -> Option<ResourceType> {
        Some(match number {
            2 => ResourceType::Topic,
            4 => ResourceType::Broker,
            8 => ResourceType::BrokerLogger,
            16 => ResourceType::ClientMetrics,
            32 => ResourceType::Group,
            _ => return None,
        })
    }
}

impl Refused {
    /// A refusal with a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Refused {
        Refused {
            code,
            message: Some(message.into()),
        }
    }

    /// The request makes no sense.
    pub fn invalid_request(message: impl Into<String>) -> Refused {
        Refused::new(ErrorCode::InvalidRequest, message)
    }
}

impl From<AlterError> for Refused {
    fn from(error: AlterError) -> Self {
        let code = match error {
            AlterError::InvalidConfig(_) => ErrorCode::InvalidConfig,
            AlterError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        };
        Refused::new(code, error.to_string())
    }
}

/// The broker that a resource name means: `None` is the default of all. Clients send what concerns one broker to that broker.
pub fn broker_of(own: BrokerId, name: &str) -> Result<Option<BrokerId>, Refused> {
    if name.is_empty() {
        return Ok(None);
    }
    let id: i32 = name.parse().map_err(|_| {
        Refused::invalid_request(format!("Broker id must be an integer, but it is: {name}"))
    })?;
    if id != own.0 {
        return Err(Refused::invalid_request(format!(
            "Unexpected broker id, expected {own} or empty string, but received {name}"
        )));
    }
    Ok(Some(BrokerId(id)))
}

/// Names of resources and keys that come twice, which Kafka refuses.
pub fn duplicates<T: Eq + std::hash::Hash + Clone>(items: impl Iterator<Item = T>) -> HashSet<T> {
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    for item in items {
        if !seen.insert(item.clone()) {
            twice.insert(item);
        }
    }
    twice
}

/// Refuses keys that come twice, and those of which it is said that they lack a value that they need.
pub fn check_keys<'a>(keys: impl Iterator<Item = (&'a str, bool)> + Clone) -> Result<(), Refused> {
    if !duplicates(keys.clone().map(|(name, _)| name)).is_empty() {
        return Err(Refused::invalid_request(
            "Error due to duplicate config keys",
        ));
    }
    let nulls: Vec<&str> = keys
        .filter(|(_, lacks)| *lacks)
        .map(|(name, _)| name)
        .collect();
    if nulls.is_empty() {
        return Ok(());
    }
    let names = nulls.join(",");
    Err(Refused::invalid_request(format!(
        "Null value not supported for : {names}"
    )))
}

/// What a request wants of one resource.
pub enum Wanted {
    /// Changes of single keys.
    Changes(Vec<(String, AlterOp)>),
    /// These keys and no others.
    Replacement(Vec<(String, String)>),
}

/// Checks a change of one resource and, unless the client only wants to know, carries it out.
pub async fn alter(
    cx: &RequestContext,
    resource_type: i8,
    resource_name: &str,
    wanted: Wanted,
    validate_only: bool,
) -> Result<(), Refused> {
    let resource = match ResourceType::of(resource_type) {
        Some(ResourceType::Topic) => topic_resource(resource_name)?,
        Some(ResourceType::Broker) => {
            ConfigResource::Broker(match drained(resource_name, &wanted) {
                Some(id) if cx.broker.replication.image().broker(id).is_some() => Some(id),
                _ => broker_of(cx.broker.id, resource_name)?,
            })
        }
        Some(kind) => return refuse_unbuilt(kind, resource_name, &wanted),
        None => {
            return Err(Refused::invalid_request(format!(
                "Unsupported resource type: {resource_type}"
            )));
        }
    };
    let image = cx.broker.replication.image();
    let own = image.configs(&resource);
    if let (ConfigResource::Topic(name), None) = (&resource, own) {
        return Err(Refused::new(
            ErrorCode::UnknownTopicOrPartition,
            format!("The topic '{name}' does not exist."),
        ));
    }
    let none = Overrides::new();
    let own = own.unwrap_or(&none);
    let ops = match wanted {
        Wanted::Changes(ops) => ops,
        Wanted::Replacement(pairs) => alter::replacement(own, pairs),
    };
    let layers = cx.broker.configs.layers();
    let changes = match &resource {
        ConfigResource::Topic(_) => alter::topic_changes(&layers, own, &ops)?,
        ConfigResource::Broker(broker) => {
            alter::broker_changes(&layers, broker.is_none(), own, &ops)?
        }
        ConfigResource::Group(_) | ConfigResource::ClientMetrics(_) => Vec::new(),
    };
    if (changes.iter()).any(|(key, value)| key == DRAINING && value.is_some()) {
        check_can_drain(&image)?;
    }
    if validate_only || changes.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = changes.iter().map(|(key, _)| key.as_str()).collect();
    tracing::info!(%resource, ?keys, "configuration altered");
    let command = Command::AlterConfigs { resource, changes };
    let timeout: Duration = cx.broker.config().replication.request_timeout;
    match cx
        .broker
        .replication
        .controller()
        .submit(command, timeout)
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => Err(Refused::new(errors::submit(&error), error.to_string())),
    }
}

/// The broker whose draining is all that a change is about: that may be said to any broker, for the one that is drained may be
/// down.
fn drained(broker: &str, wanted: &Wanted) -> Option<BrokerId> {
    let Wanted::Changes(ops) = wanted else {
        return None;
    };
    let only = !ops.is_empty() && ops.iter().all(|(key, _)| key == DRAINING);
    let id = broker.parse().ok().map(BrokerId);
    id.filter(|_| only)
}

/// Brokers of a version from before the level would place replicas on a broker that is being emptied.
fn check_can_drain(image: &MetadataImage) -> Result<(), Refused> {
    let refused = image.check_can_move().err();
    refused.map_or(Ok(()), |error| {
        Err(Refused::new(errors::metadata(&error), error.to_string()))
    })
}

fn topic_resource(topic: &str) -> Result<ConfigResource, Refused> {
    name::check(topic).map_err(|error| Refused::new(error.code(), error.to_string()))?;
    Ok(ConfigResource::Topic(TopicName::from(topic)))
}

/// Resources that have no settings here: each key is unknown.
fn refuse_unbuilt(kind: ResourceType, name: &str, wanted: &Wanted) -> Result<(), Refused> {
    if kind == ResourceType::Group && name.is_empty() {
        return Err(Refused::invalid_request(
            "Default group resources are not allowed.",
        ));
    }
    let key = match wanted {
        Wanted::Changes(ops) => ops.first().map(|(key, _)| key.as_str()),
        Wanted::Replacement(pairs) => pairs.first().map(|(key, _)| key.as_str()),
    };
    let Some(key) = key else { return Ok(()) };
    Err(match kind {
        ResourceType::Group => Refused::new(
            ErrorCode::InvalidConfig,
            format!("Unknown group config name: {key}"),
        ),
        ResourceType::ClientMetrics => {
            Refused::invalid_request(format!("Unknown client metrics configuration: {key}"))
        }
        _ => Refused::new(
            ErrorCode::InvalidConfig,
            "Log levels cannot be changed while the broker runs; set log.level and restart it",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_resources_are_this_broker_or_all() {
        let own = BrokerId(1);
        assert_eq!(broker_of(own, ""), Ok(None));
        assert_eq!(broker_of(own, "1"), Ok(Some(own)));
        let message = |name: &str| {
            broker_of(own, name)
                .expect_err("refused")
                .message
                .expect("a sentence")
        };
        assert_eq!(
            message("2"),
            "Unexpected broker id, expected 1 or empty string, but received 2"
        );
        assert_eq!(message("x"), "Broker id must be an integer, but it is: x");
    }

    #[test]
    fn any_broker_may_be_told_that_another_is_drained() {
        let change = |key: &str| (key.to_owned(), AlterOp::Set("true".to_owned()));
        let wanted = |keys: &[&str]| Wanted::Changes(keys.iter().map(|key| change(key)).collect());
        assert_eq!(drained("2", &wanted(&[DRAINING])), Some(BrokerId(2)));
        assert_eq!(drained("", &wanted(&[DRAINING])), None);
        for other in [
            &[][..],
            &["max.connections"],
            &[DRAINING, "max.connections"],
        ] {
            assert_eq!(drained("2", &wanted(other)), None);
        }
    }

    #[test]
    fn resources_without_settings_refuse_every_key() {
        let wanted = || Wanted::Changes(vec![("foo".to_owned(), AlterOp::Set("1".to_owned()))]);
        let code = |kind| {
            refuse_unbuilt(kind, "x", &wanted())
                .expect_err("refused")
                .code
        };
        assert_eq!(code(ResourceType::Group), ErrorCode::InvalidConfig);
        assert_eq!(code(ResourceType::ClientMetrics), ErrorCode::InvalidRequest);
        assert_eq!(code(ResourceType::BrokerLogger), ErrorCode::InvalidConfig);
        assert_eq!(
            refuse_unbuilt(ResourceType::Group, "x", &Wanted::Changes(Vec::new())),
            Ok(())
        );
    }
}
