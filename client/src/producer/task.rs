//! The task that owns a producer's batches: takes records in, sends batches, decides what a failure means.

use std::collections::HashMap;
use std::sync::Arc;

use tidelog_protocol::ErrorCode;
use tidelog_protocol::messages::InitProducerIdRequest;
use tidelog_protocol::types::{BrokerId, ProducerEpoch, ProducerId, TopicPartition};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ProducerConfig;
use super::accumulator::{Accumulator, Identification, Policy};
use super::batch::{Batch, PendingRecord};
use super::sender::{self, Outcome};
use crate::backoff;
use crate::client::Client;
use crate::error::Error;

/// Records taken in before batches are looked at again.
const COMMANDS_AT_ONCE: usize = 256;

/// What the producer's handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    Append(TopicPartition, PendingRecord),
    Flush(oneshot::Sender<()>),
}

/// What a task that was spawned comes back with.
#[derive(Debug)]
enum Finished {
    Sent(
        Vec<(TopicPartition, Batch)>,
        HashMap<TopicPartition, Outcome>,
    ),
    Identified(Result<(ProducerId, ProducerEpoch), Error>),
}

/// State of the task.
pub(super) struct ProducerTask {
    client: Client,
    config: Arc<ProducerConfig>,
    commands: mpsc::Receiver<Command>,
    accumulator: Accumulator,
    identification: Identification,
    /// A request for a producer id is out.
    is_identifying: bool,
    identify_attempts: u32,
    /// The next request for a producer id goes at this time.
    identify_at: Option<Instant>,
    running: JoinSet<Finished>,
    flushes: Vec<oneshot::Sender<()>>,
}

impl ProducerTask {
    pub(super) fn new(
        client: Client,
        config: Arc<ProducerConfig>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        ProducerTask {
            client,
            identification: if config.idempotence {
                Identification::Pending
            } else {
                Identification::Anonymous
            },
            config,
            commands,
            accumulator: Accumulator::default(),
            is_identifying: false,
            identify_attempts: 0,
            identify_at: None,
            running: JoinSet::new(),
            flushes: Vec::new(),
        }
    }

    /// Runs until the producer is dropped.
    pub(super) async fn run(mut self) {
        let mut received = Vec::new();
        loop {
            self.act();
            let policy = self.policy();
            let moment = self
                .accumulator
                .next_moment(&policy, self.identification)
                .into_iter()
                .chain(self.identify_at)
                .min();
            let pause = async {
                match moment {
                    Some(moment) => tokio::time::sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                count = self.commands.recv_many(&mut received, COMMANDS_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    received.drain(..).for_each(|command| self.take(command));
                }
                Some(finished) = self.running.join_next() => match finished {
                    Ok(finished) => self.finish(finished),
                    Err(error) => tracing::error!(%error, "sending task failed"),
                },
                () = pause => {}
            }
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            linger: self.config.linger,
            batch_bytes: self.config.batch_bytes,
            delivery_timeout: self.config.delivery_timeout,
            is_flushing: !self.flushes.is_empty(),
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Append(to, record) => {
                self.accumulator
                    .append(to, record, &self.policy(), Instant::now());
            }
            Command::Flush(done) => self.flushes.push(done),
        }
    }

    /// Does all that can be done now.
    fn act(&mut self) {
        let now = Instant::now();
        let policy = self.policy();
        for (_, batch) in self.accumulator.take_expired(&policy, now) {
            self.expire(batch);
        }
        if self.accumulator.is_empty() {
            for flushed in self.flushes.drain(..) {
                // Whoever stopped waiting does not want to know.
                flushed.send(()).ok();
            }
            return;
        }
        self.identify(now);
        let ready = self
            .accumulator
            .take_ready(&policy, self.identification, now);
        let mut by_leader: HashMap<Option<BrokerId>, Vec<(TopicPartition, Batch)>> = HashMap::new();
        for (to, batch) in ready {
            let leader = self.client.leader_id(&to).ok();
            by_leader.entry(leader).or_default().push((to, batch));
        }
        for (leader, batches) in by_leader {
            self.send(leader, batches);
        }
    }

    fn send(&mut self, leader: Option<BrokerId>, batches: Vec<(TopicPartition, Batch)>) {
        let mut sent = Vec::with_capacity(batches.len());
        let mut encoded = Vec::with_capacity(batches.len());
        for (to, mut batch) in batches {
            match batch.encoded(self.config.compression) {
                Ok(bytes) => {
                    encoded.push((to.clone(), bytes));
                    batch.attempts += 1;
                    sent.push((to, batch));
                }
                Err(error) => {
                    self.accumulator.settle(&to, None);
                    batch.fail(&Error::Invalid(error.to_string()), &[]);
                }
            }
        }
        if sent.is_empty() {
            return;
        }
        let (client, config) = (self.client.clone(), self.config.clone());
        let leader = leader.ok_or_else(|| Error::broker(ErrorCode::LeaderNotAvailable));
        self.running.spawn(async move {
            let outcomes = sender::send(client, leader, &config, encoded).await;
            Finished::Sent(sent, outcomes)
        });
    }

    fn finish(&mut self, finished: Finished) {
        match finished {
            Finished::Sent(batches, mut outcomes) => {
                for (to, batch) in batches {
                    match outcomes.remove(&to) {
                        Some(Outcome::Stored(offset)) => {
                            self.accumulator.settle(&to, Some(&batch));
                            batch.deliver(&to, offset);
                        }
                        Some(Outcome::Failed(error, of_records)) => {
                            self.fail(&to, batch, error, &of_records);
                        }
                        None => self.fail(&to, batch, Error::Closed, &[]),
                    }
                }
            }
            Finished::Identified(result) => self.identified(result),
        }
    }

    /// Sends it again, in halves if it was too large, or gives up.
    fn fail(
        &mut self,
        to: &TopicPartition,
        mut batch: Batch,
        error: Error,
        of_records: &[(usize, Error)],
    ) {
        batch.is_in_doubt |= error.is_in_doubt();
        let now = Instant::now();
        if error.is(ErrorCode::MessageTooLarge) && !batch.is_in_doubt {
            batch.forget_identity();
            match batch.split() {
                Ok((first, second)) => {
                    self.accumulator.put_back(to, second);
                    self.accumulator.put_back(to, first);
                }
                Err(single) => {
                    self.accumulator.settle(to, None);
                    single.fail(&error, of_records);
                }
            }
            return;
        }
        if error.is_retriable() && batch.created + self.config.delivery_timeout > now {
            tracing::debug!(partition = %to, %error, attempts = batch.attempts, "batch is sent again");
            batch.not_before = Some(now + backoff::delay_after(batch.attempts));
            batch.last_error = Some(error);
            self.accumulator.put_back(to, batch);
            return;
        }
        self.accumulator.settle(to, None);
        let breaks_sequence = batch.is_in_doubt
            || [
                ErrorCode::OutOfOrderSequenceNumber,
                ErrorCode::InvalidProducerEpoch,
                ErrorCode::UnknownProducerId,
                ErrorCode::ProducerFenced,
            ]
            .iter()
            .any(|code| error.is(*code));
        if breaks_sequence && batch.identity.is_some() {
            self.identification = Identification::Pending;
        }
        batch.fail(&error, of_records);
    }

    fn expire(&mut self, batch: Batch) {
        // Whether the broker has it is not known, so the numbers after it cannot go on.
        if batch.is_in_doubt && batch.identity.is_some() {
            self.identification = Identification::Pending;
        }
        let error = batch.last_error.clone().unwrap_or(Error::TimedOut {
            what: "delivery".to_owned(),
            after: self.config.delivery_timeout,
        });
        batch.fail(&error, &[]);
    }

    /// Asks for a producer id if one is needed and no batch of the last one is left.
    fn identify(&mut self, now: Instant) {
        let is_due = self.identify_at.is_none_or(|at| at <= now);
        if self.identification != Identification::Pending
            || self.is_identifying
            || !is_due
            || !self.accumulator.is_unidentified()
        {
            return;
        }
        self.is_identifying = true;
        self.identify_at = None;
        let client = self.client.clone();
        self.running
            .spawn(async move { Finished::Identified(producer_id(&client).await) });
    }

    fn identified(&mut self, result: Result<(ProducerId, ProducerEpoch), Error>) {
        self.is_identifying = false;
        match result {
            Ok((id, epoch)) => {
                self.identify_attempts = 0;
                self.accumulator.restart_sequences();
                self.identification = Identification::As(id, epoch);
            }
            Err(error) if !error.is_retriable() => {
                for batch in self.accumulator.take_all() {
                    batch.fail(&error, &[]);
                }
            }
            Err(error) => {
                // The records that wait expire with the delivery time-out.
                tracing::debug!(%error, "no producer id");
                self.identify_attempts += 1;
                self.identify_at =
                    Some(Instant::now() + backoff::delay_after(self.identify_attempts));
            }
        }
    }
}

/// A fresh producer id from any broker.
async fn producer_id(client: &Client) -> Result<(ProducerId, ProducerEpoch), Error> {
    let connection = client.controller().await?;
    let request = |_| {
        InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX)
    };
    let reply = connection
        .call(client.config().request_timeout, request)
        .await?;
    Error::check(reply.error_code, None)?;
    Ok((
        ProducerId(reply.producer_id.0),
        ProducerEpoch(reply.producer_epoch),
    ))
}
