//! Answers the control plane's requests for this broker.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tidelog_protocol::types::BrokerId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::codec;
use super::message::{Introduction, Member, Reply, Request};
use crate::behind;
use crate::controller::Controller;
use crate::election;
use crate::hosted::HostedPartitions;
use crate::metadata::command::{Command, MetadataError};
use crate::metadata::image::MetadataImage;
use crate::metadata::record;
use crate::partition::records::RecordsWanted;
use crate::peers::{CallHandler, CallKind, Refusal, RefusalCode, Served};
use crate::raft::types::ReplicaId;
use crate::succession;
use crate::suspects;

/// Why a broker that starts does nothing for others yet.
const STARTING: &str = "this broker is starting";

/// Longest time that a command of another broker is waited for.
const SUBMIT_MAX: Duration = Duration::from_secs(60);

/// A sign of life, for the controller's leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The broker.
    pub broker: BrokerId,
    /// Epoch of its registration.
    pub epoch: i64,
    /// When it came.
    pub at: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct ControlHandler {
    controller: Arc<Controller>,
    hosted: Arc<OnceLock<Arc<HostedPartitions>>>,
    heartbeats: mpsc::Sender<Heartbeat>,
}

impl ControlHandler {
    /// A handler; heartbeats go to whoever looks after the brokers. The partitions are there later.
    pub fn new(
        controller: Arc<Controller>,
        hosted: Arc<OnceLock<Arc<HostedPartitions>>>,
        heartbeats: mpsc::Sender<Heartbeat>,
    ) -> ControlHandler {
        ControlHandler {
            controller,
            hosted,
            heartbeats,
        }
    }
}

impl ControlHandler {
    /// Why a broker that wants to be registered is too old for the cluster, if it is. Such a broker belongs to the cluster, and
    /// its connections carry calls only.
    fn too_old(&self, record: &[u8]) -> Option<MetadataError> {
        let Ok(Command::RegisterBroker(registration)) = record::decode(record) else {
            return None;
        };
        let image = self.controller.shared().image();
        image
            .check_knows_level(registration.broker, registration.feature_level_max)
            .err()
    }
}

impl CallHandler for ControlHandler {
    fn call(&self, from: ReplicaId, joined: bool, kind: CallKind, body: Bytes) -> Served<Bytes> {
        let refuse = |code, text: String| -> Served<Bytes> {
            Box::pin(std::future::ready(Err(Refusal::new(code, text))))
        };
        let request = match codec::decode_request(kind, body) {
            Ok(Some(request)) => request,
            Ok(None) => {
                let text = format!("calls of kind {} are not known to this version", kind.0);
                return refuse(RefusalCode::UnknownCall, text);
            }
            Err(error) => return refuse(RefusalCode::Malformed, error.to_string()),
        };
        if let Request::Submit { record, .. } = &request
            && let Some(why) = self.too_old(record)
        {
            // It is told as the controller would tell it, so that it does not wait for another answer.
            let reply = Reply::Submitted {
                result: Err(why),
                applied: 0,
            };
            return Box::pin(std::future::ready(Ok(codec::encode_reply(&reply))));
        }
        if !joined && request != Request::Introduce {
            return refuse(
                RefusalCode::NotJoined,
                format!("{from} has not joined the cluster"),
            );
        }
        let (controller, hosted) = (self.controller.clone(), self.hosted.get().cloned());
        let heartbeats = self.heartbeats.clone();
        Box::pin(async move {
            let image = controller.shared().image();
            let reply = match (request, hosted) {
                (Request::Introduce, _) => introduce(&image, controller.leader()),
                (Request::Heartbeat { broker, epoch }, _) => {
                    heard(&controller, &heartbeats, broker, epoch)
                }
                (Request::Submit { record, timeout_ms }, _) => {
                    let patience = Duration::from_millis(timeout_ms.into()).min(SUBMIT_MAX);
                    controller.submit_here(record, patience).await
                }
                (Request::ReadIndex, _) => controller.read_index().await,
                (Request::DescribeQuorum, _) => match controller.quorum() {
                    Some(quorum) => Reply::Quorum(quorum),
                    None => Reply::NotController(controller.leader()),
                },
                // All others are about partitions.
                (_, None) => Reply::NotNow(STARTING.into()),
                (Request::HandOver(groups), Some(hosted)) => {
                    Reply::HandedOver(election::hand_over(&image, &hosted, &groups).await)
                }
                (Request::Agree(asked), Some(hosted)) => {
                    Reply::Agreed(succession::agree(&hosted, &asked))
                }
                (Request::Trust(groups), Some(hosted)) => {
                    suspects::trust(&image, &hosted, groups).await;
                    Reply::Heard
                }
                (Request::ReadRecords(wanted), Some(hosted)) => read_records(&hosted, wanted).await,
                (Request::Pace(pace), Some(hosted)) => {
                    Reply::Paced(hosted.throttles().answer(from.broker, pace))
                }
                (Request::TellCommitted(groups), Some(hosted)) => {
                    behind::tell_committed(&hosted, groups).await;
                    Reply::Heard
                }
            };
            Ok(codec::encode_reply(&reply))
        })
    }
}

fn heard(
    controller: &Controller,
    heartbeats: &mpsc::Sender<Heartbeat>,
    broker: BrokerId,
    epoch: i64,
) -> Reply {
    if !controller.leads() {
        return Reply::NotController(controller.leader());
    }
    let at = Instant::now();
    // A full mailbox has many others of the same brokers.
    let _ = heartbeats.try_send(Heartbeat { broker, epoch, at });
    Reply::Heard
}

async fn read_records(hosted: &HostedPartitions, wanted: RecordsWanted) -> Reply {
    let RecordsWanted { group, .. } = wanted;
    match hosted.get(group.topic, group.partition) {
        Some(partition) => match partition.read_records(wanted).await {
            Ok(read) => Reply::Records(read),
            Err(error) => Reply::NotNow(error.to_string()),
        },
        None => Reply::NotNow("this broker has no replica of the partition".into()),
    }
}

fn introduce(image: &MetadataImage, controller: Option<BrokerId>) -> Reply {
    if image.cluster_id().is_nil() {
        return Reply::NotNow("this broker has not joined its cluster yet".into());
    }
    let members = image.brokers().map(|broker| Member {
        replica: broker.replica(),
        address: broker.peer_address.clone(),
    });
    Reply::Introduced(Introduction {
        cluster_id: image.cluster_id(),
        feature_level: image.feature_level(),
        controller,
        members: members.collect(),
    })
}
