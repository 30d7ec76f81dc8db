//! Reading and changing a topic's settings.

use tidelog_protocol::messages::describe_configs_request::DescribeConfigsResource;
use tidelog_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use tidelog_protocol::messages::{
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use tidelog_protocol::types::{BrokerId, TopicName};

use super::{Admin, check, only, text};
use crate::error::Error;

/// Kafka's number of the resource type "topic".
const TOPIC: i8 = 2;
/// Kafka's number of the resource type "broker".
const BROKER: i8 = 4;
/// Kafka's number of the source "set on this topic".
const TOPIC_SOURCE: i8 = 1;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// One setting as it holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name of it.
    pub name: String,
    /// Its value; `None` when it is secret or unset.
    pub value: Option<String>,
    /// Whether it was set on this topic, as opposed to inherited.
    pub is_set_here: bool,
    /// Whether it cannot be changed.
    pub is_read_only: bool,
    /// Whether its value is kept secret.
    pub is_sensitive: bool,
}

/// One change of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Give it this value.
    Set {
        /// Kafka's name of it.
        name: String,
        /// The value.
        value: String,
    },
    /// Go back to the broker's default.
    Reset {
        /// Kafka's name of it.
        name: String,
    },
    /// Add words to a list.
    Append {
        /// Kafka's name of it.
        name: String,
        /// The words, separated by commas.
        words: String,
    },
    /// Take words out of a list.
    Subtract {
        /// Kafka's name of it.
        name: String,
        /// The words, separated by commas.
        words: String,
    },
}

impl ConfigChange {
    fn to_wire(&self) -> AlterableConfig {
        let (name, operation, value) = match self {
            ConfigChange::Set { name, value } => (name, SET, Some(value)),
            ConfigChange::Reset { name } => (name, DELETE, None),
            ConfigChange::Append { name, words } => (name, APPEND, Some(words)),
            ConfigChange::Subtract { name, words } => (name, SUBTRACT, Some(words)),
        };
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(operation)
            .with_value(value.map(|value| text(value)))
    }
}

/// Changes of one resource's settings, as the wire has them.
fn request_of(
    resource_type: i8,
    name: &str,
    changes: &[ConfigChange],
) -> IncrementalAlterConfigsRequest {
    let resource = AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(name))
        .with_configs(changes.iter().map(ConfigChange::to_wire).collect());
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

fn altered(reply: IncrementalAlterConfigsResponse) -> Result<(), Error> {
    let result = only(reply.responses)?;
    check(result.error_code, &result.error_message)
}

impl Admin {
    /// All settings of a topic, by name.
    pub async fn topic_configs(&self, name: &TopicName) -> Result<Vec<ConfigEntry>, Error> {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(name.into())
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        self.ask_controller(request, |reply| {
            let result = only(reply.results)?;
            check(result.error_code, &result.error_message)?;
            let entries = result.configs.into_iter().map(|config| ConfigEntry {
                name: config.name.to_string(),
                value: config.value.map(|value| value.to_string()),
                is_set_here: config.config_source == TOPIC_SOURCE,
                is_read_only: config.read_only,
                is_sensitive: config.is_sensitive,
            });
            let mut entries: Vec<_> = entries.collect();
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        })
        .await
    }

    /// Changes settings of a topic; all of them or none.
    pub async fn alter_topic_configs(
        &self,
        name: &TopicName,
        changes: &[ConfigChange],
    ) -> Result<(), Error> {
        let request = request_of(TOPIC, name.as_str(), changes);
        self.ask_controller(request, altered).await
    }

    /// Changes settings of one broker, which is asked itself and has to be up; all of them or none.
    pub async fn alter_broker_configs(
        &self,
        broker: BrokerId,
        changes: &[ConfigChange],
    ) -> Result<(), Error> {
        let request = request_of(BROKER, &broker.to_string(), changes);
        self.ask_broker(broker, request, altered).await
    }

    /// The same by way of the controller, so that the broker need not be up: for those few settings of which brokers take
    /// changes for others.
    pub async fn alter_broker_configs_for(
        &self,
        broker: BrokerId,
        changes: &[ConfigChange],
    ) -> Result<(), Error> {
        let request = request_of(BROKER, &broker.to_string(), changes);
        self.ask_controller(request, altered).await
    }
}
