//! DescribeConfigs: every setting of a resource, with its value, source, synonyms and documentation (rule 34).

use std::collections::HashSet;

use tidelog_protocol::messages::describe_configs_request::DescribeConfigsResource;
use tidelog_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use tidelog_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use tidelog_protocol::types::TopicName;
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::MetadataImage;

use crate::config::definition::{Definition, Kind};
use crate::config::{BrokerConfig, ConfigEntry, ConfigSource, Layers, SynonymEntry};
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::HandlerError;
use crate::kafka::handlers::config_resource::{Refused, ResourceType, broker_of};
use crate::kafka::memory::Building;
use crate::topics::name;

/// What an entry or a synonym takes beside its texts.
const ENTRY_BYTES: usize = 200;

/// Answers from the image and the broker's own settings.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeConfigsRequest,
) -> Result<DescribeConfigsResponse, HandlerError> {
    let image = cx.broker.replication.image();
    let (layers, config) = (cx.broker.configs.layers(), cx.broker.config());
    let describer = Describer {
        layers: &layers,
        config: &config,
        image: &image,
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    let mut results = Vec::new();
    let mut building = Building::begin(cx);
    for resource in distinct(request.resources) {
        let result = describer.answer(resource);
        let entries = result.configs.iter();
        building.add(entries.map(size_of_entry).sum()).await?;
        results.push(result);
    }
    Ok(DescribeConfigsResponse::default().with_results(results))
}

/// The resources without exact repetitions.
fn distinct(mut resources: Vec<DescribeConfigsResource>) -> Vec<DescribeConfigsResource> {
    let mut seen = HashSet::with_capacity(resources.len());
    resources.retain(|resource| {
        seen.insert((
            resource.resource_type,
            resource.resource_name.clone(),
            resource.configuration_keys.clone(),
        ))
    });
    resources
}

/// About as many bytes as the entry takes in memory.
fn size_of_entry(entry: &DescribeConfigsResourceResult) -> usize {
    let texts = [&entry.value, &entry.documentation];
    let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
    let value = entry.value.as_ref().map_or(0, |value| value.len());
    ENTRY_BYTES + texts + entry.synonyms.len() * (ENTRY_BYTES + value)
}

/// What does not change from one resource of a request to the next.
struct Describer<'a> {
    layers: &'a Layers,
    config: &'a BrokerConfig,
    image: &'a MetadataImage,
    synonyms: bool,
    documentation: bool,
}

impl Describer<'_> {
    fn answer(&self, resource: DescribeConfigsResource) -> DescribeConfigsResult {
        let described = self.describe(resource.resource_type, resource.resource_name.as_str());
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name);
        let asked = resource.configuration_keys;
        let is_asked = |entry: &DescribeConfigsResourceResult| {
            asked.as_ref().is_none_or(|keys| keys.contains(&entry.name))
        };
        match described {
            Ok(entries) => result.with_configs(entries.into_iter().filter(is_asked).collect()),
            Err(refused) => result
                .with_error_code(refused.code.code())
                .with_error_message(Some(StrBytes::from_string(
                    refused.message.unwrap_or_default(),
                ))),
        }
    }

    fn describe(
        &self,
        resource_type: i8,
        resource: &str,
    ) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
        match ResourceType::of(resource_type) {
            Some(ResourceType::Topic) => {
                name::check(resource)
                    .map_err(|error| Refused::new(error.code(), error.to_string()))?;
                let topic = self.image.topic(&TopicName::from(resource));
                let topic = topic.ok_or(Refused {
                    code: ErrorCode::UnknownTopicOrPartition,
                    message: None,
                })?;
                Ok(self.entries(self.layers.describe_topic(&topic.configs)))
            }
            Some(ResourceType::Broker) => match broker_of(self.config.node_id, resource)? {
                Some(_) => Ok(self.entries(self.layers.describe_broker())),
                None => Ok(self.entries(self.layers.describe_cluster_default())),
            },
            Some(ResourceType::BrokerLogger) => match broker_of(self.config.node_id, resource)? {
                Some(_) => Ok(vec![self.root_logger()]),
                None => Err(Refused::invalid_request("Broker id must not be empty")),
            },
            // Neither has settings here.
            Some(ResourceType::ClientMetrics | ResourceType::Group) => Ok(Vec::new()),
            None => Err(Refused::invalid_request(format!(
                "Unsupported resource type: {resource_type}"
            ))),
        }
    }

    fn entries(&self, entries: Vec<ConfigEntry>) -> Vec<DescribeConfigsResourceResult> {
        entries.into_iter().map(|entry| self.entry(entry)).collect()
    }

    fn entry(&self, entry: ConfigEntry) -> DescribeConfigsResourceResult {
        let definition = entry.definition;
        let synonyms = if self.synonyms {
            entry.synonyms
        } else {
            Vec::new()
        };
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(definition.name))
            .with_value(entry.value.map(StrBytes::from_string))
            .with_read_only(entry.read_only)
            .with_config_source(entry.source as i8)
            .with_is_sensitive(definition.is_secret())
            .with_synonyms(synonyms.into_iter().map(synonym).collect())
            .with_config_type(type_number(definition))
            .with_documentation(
                self.documentation
                    .then(|| StrBytes::from_static_str(definition.doc)),
            )
    }

    /// The one logger that stands for all: what `log.level` says.
    fn root_logger(&self) -> DescribeConfigsResourceResult {
        let level = self.config.process.log_level.to_ascii_uppercase();
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str("root"))
            .with_value(Some(StrBytes::from_string(level)))
            .with_read_only(true)
            .with_config_source(ConfigSource::BrokerLogger as i8)
    }
}

fn synonym(entry: SynonymEntry) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default()
        .with_name(StrBytes::from_static_str(entry.name))
        .with_value(entry.value.map(StrBytes::from_string))
        .with_source(entry.source as i8)
}

/// Kafka's numbers of types.
fn type_number(definition: &Definition) -> i8 {
    match definition.kind {
        Kind::Bool => 1,
        Kind::Text | Kind::Choice(_) => 2,
        Kind::Int(..) | Kind::GzipLevel => 3,
        Kind::Short(..) => 4,
        Kind::Long(..) => 5,
        Kind::Double(..) => 6,
        Kind::List(_) | Kind::Replicas => 7,
        Kind::Class => 8,
        Kind::Secret => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadArgs, Overrides, load};

    fn with_describer<T>(synonyms: bool, test: impl FnOnce(&Describer<'_>) -> T) -> T {
        let loaded = load(&LoadArgs::default()).expect("defaults load");
        let cluster = Overrides::from([("message.max.bytes".to_owned(), "2000".to_owned())]);
        let layers = Layers::new(loaded.settings, cluster, Overrides::new());
        test(&Describer {
            layers: &layers,
            config: &loaded.config,
            image: &MetadataImage::default(),
            synonyms,
            documentation: false,
        })
    }

    fn resource(resource_type: i8, name: &'static str) -> DescribeConfigsResource {
        DescribeConfigsResource::default()
            .with_resource_type(resource_type)
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configuration_keys(None)
    }

    #[test]
    fn rule_34_every_key_of_a_broker() {
        with_describer(true, |describer| {
            let result = describer.answer(resource(4, "1"));
            assert_eq!(result.error_code, 0);
            let find = |name: &str| {
                result
                    .configs
                    .iter()
                    .find(|c| c.name.as_str() == name)
                    .expect("listed")
            };
            assert_eq!(
                result.configs.len(),
                crate::config::definitions::all().count()
            );
            assert_eq!(find("message.max.bytes").value.as_deref(), Some("2000"));
            assert_eq!(find("message.max.bytes").config_source, 3);
            assert_eq!(find("message.max.bytes").synonyms.len(), 2);
            assert_eq!(find("num.partitions").config_type, 3);
            assert!(find("num.partitions").read_only);
            assert!(find("ssl.key.password").is_sensitive);
        });
    }

    #[test]
    fn only_the_keys_asked_for() {
        with_describer(false, |describer| {
            let keys = ["num.partitions", "foo"]
                .map(StrBytes::from_static_str)
                .to_vec();
            let result = describer.answer(resource(4, "1").with_configuration_keys(Some(keys)));
            assert_eq!(result.configs.len(), 1);
            assert!(result.configs[0].synonyms.is_empty());
        });
    }

    #[test]
    fn default_broker_shows_what_was_set_for_all() {
        with_describer(true, |describer| {
            let result = describer.answer(resource(4, ""));
            assert_eq!(result.configs.len(), 1);
            assert_eq!(
                (
                    result.configs[0].config_source,
                    result.configs[0].synonyms.len()
                ),
                (3, 1)
            );
        });
    }

    #[test]
    fn a_resource_that_is_named_again_and_again_is_answered_once() {
        let mut asked = vec![resource(4, "1"); 100];
        asked.push(resource(4, ""));
        asked.push(resource(4, "1").with_configuration_keys(Some(Vec::new())));
        let left = distinct(asked);
        assert_eq!(left.len(), 3);
        assert_eq!(left[0], resource(4, "1"));
    }

    #[test]
    fn resources_that_are_refused() {
        with_describer(true, |describer| {
            let code =
                |resource_type, name| describer.answer(resource(resource_type, name)).error_code;
            assert_eq!(code(2, "nope"), ErrorCode::UnknownTopicOrPartition.code());
            assert_eq!(code(2, "a b"), ErrorCode::InvalidTopicException.code());
            assert_eq!(code(4, "9"), ErrorCode::InvalidRequest.code());
            assert_eq!(code(8, ""), ErrorCode::InvalidRequest.code());
            assert_eq!(code(7, "x"), ErrorCode::InvalidRequest.code());
            assert_eq!((code(32, "g"), code(16, "m"), code(8, "1")), (0, 0, 0));
        });
    }
}
