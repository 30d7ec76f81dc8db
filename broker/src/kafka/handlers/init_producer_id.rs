//! InitProducerId: a fresh id for each idempotent producer. Transactions are not built; asking for one is refused.

use std::time::Duration;

use parking_lot::Mutex;
use tidelog_protocol::ErrorCode;
use tidelog_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use tidelog_protocol::types::{ProducerEpoch, ProducerId};
use tidelog_replication::{Command, Outcome};
use tracing::{info, warn};

use crate::kafka::context::RequestContext;
use crate::kafka::handlers::HandlerError;

/// Ids that a broker takes at a time, as many as Kafka's.
const BLOCK_IDS: i32 = 1000;

/// Longest wait for a block.
const BLOCK_TIME_MAX: Duration = Duration::from_secs(5);

/// Producer ids that the controller gave to this broker and that are not handed out yet.
#[derive(Debug, Default)]
pub struct ProducerIds {
    block: Mutex<Block>,
}

#[derive(Debug, Default)]
struct Block {
    next: i64,
    left: i32,
}

/// Hands out an id. Without a transactional id the producer's old id does not matter: it gets a new one.
pub async fn handle(
    cx: &RequestContext,
    request: InitProducerIdRequest,
) -> Result<InitProducerIdResponse, HandlerError> {
    let response = InitProducerIdResponse::default()
        .with_producer_id(ProducerId::NONE.0.into())
        .with_producer_epoch(ProducerEpoch::NONE.0);
    let refused = |code: ErrorCode| Ok(response.clone().with_error_code(code.code()));
    match request.transactional_id {
        Some(id) if id.is_empty() => return refused(ErrorCode::InvalidRequest),
        Some(id) => {
            info!(
                transactional_id = id.as_str(),
                client = cx.client_id(),
                "transactions are not served yet"
            );
            return refused(ErrorCode::UnsupportedVersion);
        }
        None => {}
    }
    match next_id(cx).await {
        Ok(id) => Ok(response
            .with_producer_id(id.0.into())
            .with_producer_epoch(0)),
        Err(code) => refused(code),
    }
}

/// The next id of the block; of a new block when there is none left. Callers that find the block empty together
/// take a block each, and all but one of those are never used: ids are plenty.
async fn next_id(cx: &RequestContext) -> Result<ProducerId, ErrorCode> {
    let ids = &cx.broker.producer_ids;
    if let Some(id) = ids.take() {
        return Ok(id);
    }
    let command = Command::AllocateProducerIds {
        broker: cx.broker.id,
        count: BLOCK_IDS,
    };
    match cx
        .broker
        .replication
        .controller()
        .submit(command, BLOCK_TIME_MAX)
        .await
    {
        Ok(Outcome::ProducerIds { first, count }) => ids
            .refill(first, count)
            .ok_or(ErrorCode::CoordinatorLoadInProgress),
        Ok(other) => {
            warn!(
                ?other,
                "the controller answered a request for producer ids with something else"
            );
            Err(ErrorCode::UnknownServerError)
        }
        Err(error) => {
            warn!(%error, "no producer ids from the controller");
            // Clients try again on this one.
            Err(ErrorCode::CoordinatorLoadInProgress)
        }
    }
}

impl ProducerIds {
    fn take(&self) -> Option<ProducerId> {
        self.block.lock().take()
    }

    /// Takes from the new block, or from one that somebody else brought meanwhile.
    fn refill(&self, first: ProducerId, count: i32) -> Option<ProducerId> {
        let mut block = self.block.lock();
        if block.left <= 0 {
            *block = Block {
                next: first.0,
                left: count,
            };
        }
        block.take()
    }
}

impl Block {
    fn take(&mut self) -> Option<ProducerId> {
        if self.left <= 0 {
            return None;
        }
        let id = ProducerId(self.next);
        self.next += 1;
        self.left -= 1;
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_handed_out_once() {
        let ids = ProducerIds::default();
        assert_eq!(ids.take(), None);
        assert_eq!(ids.refill(ProducerId(5000), 2), Some(ProducerId(5000)));
        assert_eq!(
            ids.refill(ProducerId(6000), 2),
            Some(ProducerId(5001)),
            "a block in use is kept"
        );
        assert_eq!(ids.take(), None);
        assert_eq!(ids.refill(ProducerId(7000), 1), Some(ProducerId(7000)));
    }
}
