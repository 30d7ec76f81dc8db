//! Answers the control plane's requests for this broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidelog_protocol::types::BrokerId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::codec;
use super::message::{Introduction, Member, Reply, Request};
use crate::controller::Controller;
use crate::metadata::image::MetadataImage;
use crate::peers::{CallHandler, CallKind, Refusal, RefusalCode, Served};
use crate::raft::types::ReplicaId;

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
    heartbeats: mpsc::Sender<Heartbeat>,
}

impl ControlHandler {
    /// A handler; heartbeats go to whoever looks after the brokers.
    pub fn new(controller: Arc<Controller>, heartbeats: mpsc::Sender<Heartbeat>) -> ControlHandler {
        ControlHandler {
            controller,
            heartbeats,
        }
    }

    fn heard(&self, broker: BrokerId, epoch: i64) -> Reply {
        if !self.controller.leads() {
            return Reply::NotController(self.controller.leader());
        }
        let at = Instant::now();
        // A full mailbox has many others of the same brokers.
        let _ = self.heartbeats.try_send(Heartbeat { broker, epoch, at });
        Reply::Heard
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
        if !joined && request != Request::Introduce {
            return refuse(
                RefusalCode::NotJoined,
                format!("{from} has not joined the cluster"),
            );
        }
        let controller = self.controller.clone();
        let reply = match request {
            Request::Introduce => Ok(introduce(&controller.shared().image(), controller.leader())),
            Request::Heartbeat { broker, epoch } => Ok(self.heard(broker, epoch)),
            later => Err(later),
        };
        Box::pin(async move {
            let reply = match reply {
                Ok(reply) => reply,
                Err(Request::Submit { record, timeout_ms }) => {
                    let patience = Duration::from_millis(timeout_ms.into()).min(SUBMIT_MAX);
                    controller.submit_here(record, patience).await
                }
                Err(_) => controller.read_index().await,
            };
            Ok(codec::encode_reply(&reply))
        })
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
