//! One connection that a peer has made: its requests, in and out.
//!
//! The reader takes a part of the budget before it reads a body, and hands the request on. Requests of one group are
//! carried out one after the other, those of different groups at the same time; nobody waits for another group.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::codec;
use super::connection::{Loss, write};
use super::frame::{BodyWriter, FrameError, FrameHeader, FrameKind, OutgoingFrame, RequestKind};
use super::handshake::{Lane, RemotePeer};
use super::outbox::Outbox;
use super::server::Shared;
use super::service::{Refusal, RefusalCode};
use super::wire::{FrameReader, Progress, WireError};
use crate::limits::{
    PEER_CONTROL_CALL_BYTES_MAX, PEER_CONTROL_QUEUE_BYTES_MAX, PEER_REQUESTS_IN_FLIGHT_MAX,
    PEER_SMALL_BYTES_MAX,
};
use crate::raft::codec::CodecError;
use crate::raft::types::GroupId;

/// See the module.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    remote: RemotePeer,
    outbox: Outbox,
    /// The connection is to end at once.
    ended: CancellationToken,
    /// Requests that wait behind one of their group that is being carried out.
    groups: Mutex<HashMap<GroupId, VecDeque<Job>>>,
    in_flight: Arc<Semaphore>,
    answered: Notify,
    tasks: TaskTracker,
}

/// A request that is to be carried out. What it takes of budgets goes back when it is dropped.
#[derive(Debug)]
struct Job {
    kind: RequestKind,
    request: u64,
    body: Bytes,
    _memory: OwnedSemaphorePermit,
    _slot: OwnedSemaphorePermit,
}

impl From<CodecError> for Refusal {
    fn from(error: CodecError) -> Self {
        Refusal::new(RefusalCode::Malformed, error.to_string())
    }
}

impl Session {
    /// A connection whose handshake is made. It ends when `ended` says so.
    pub fn new(
        shared: Arc<Shared>,
        remote: RemotePeer,
        ended: CancellationToken,
        tasks: TaskTracker,
    ) -> Arc<Session> {
        Arc::new(Session {
            shared,
            remote,
            outbox: Outbox::new(PEER_CONTROL_QUEUE_BYTES_MAX),
            ended,
            groups: Mutex::default(),
            in_flight: Arc::new(Semaphore::new(PEER_REQUESTS_IN_FLIGHT_MAX)),
            answered: Notify::new(),
            tasks,
        })
    }

    /// Serves until the connection is lost, or until everything is answered after the server was told to stop.
    pub async fn run<R, W>(
        self: &Arc<Self>,
        mut reader: FrameReader<R>,
        mut writer: W,
        progress: &Progress,
    ) -> Loss
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let loss = tokio::select! {
            loss = async {
                let read = self.read(&mut reader);
                if let Some(loss) = self.shared.stop.run_until_cancelled(read).await {
                    return loss;
                }
                self.drained().await;
                Loss::Stopped
            } => loss,
            loss = write(&mut writer, &self.outbox, progress) => loss,
            () = self.fall_silent(progress) => Loss::Silent,
            () = self.ended.cancelled() => Loss::Stopped,
        };
        // Requests that nobody waits for any more are not begun.
        self.ended.cancel();
        self.groups.lock().values_mut().for_each(VecDeque::clear);
        // Whether the other end hears of it makes no difference.
        let _ = writer.shutdown().await;
        loss
    }

    async fn read<R: AsyncRead + Unpin>(self: &Arc<Self>, reader: &mut FrameReader<R>) -> Loss {
        loop {
            if let Err(error) = self.read_request(reader).await {
                return error.into();
            }
        }
    }

    async fn read_request<R: AsyncRead + Unpin>(
        self: &Arc<Self>,
        reader: &mut FrameReader<R>,
    ) -> Result<(), WireError> {
        let header = reader.header().await?;
        let kind = self.check(header)?;
        if kind == RequestKind::Ping {
            let pong = OutgoingFrame::of(FrameKind::Reply(kind), header.request, &[]);
            self.send(pong);
            return Ok(());
        }
        let slot = permits(&self.in_flight, 1).await?;
        let budget = self.shared.budget(self.remote.lane);
        let memory = permits(&budget, header.body_bytes).await?;
        let frame = reader.body(header).await?;
        self.dispatch(Job {
            kind,
            request: frame.request,
            body: frame.body,
            _memory: memory,
            _slot: slot,
        });
        Ok(())
    }

    /// What may come by this lane.
    fn check(&self, header: FrameHeader) -> Result<RequestKind, FrameError> {
        let FrameKind::Request(kind) = header.kind else {
            return Err(FrameError::Unexpected(header.kind));
        };
        let bytes_max = PEER_CONTROL_CALL_BYTES_MAX + PEER_SMALL_BYTES_MAX;
        if self.remote.lane == Lane::Control && header.body_bytes > bytes_max {
            return Err(FrameError::TooLong {
                kind: header.kind,
                bytes: u32::try_from(header.body_bytes).unwrap_or(u32::MAX),
                bytes_max,
            });
        }
        Ok(kind)
    }

    /// Has a request carried out, at once or after those of its group that came before.
    fn dispatch(self: &Arc<Self>, mut job: Job) {
        if job.kind == RequestKind::Call {
            let session = self.clone();
            self.spawn(async move { session.carry_out(None, job).await });
            return;
        }
        if !self.takes_part() {
            let text = "this broker and the one that asks are not known to be of the same cluster, or one knows less than \
                        the cluster's feature level";
            return self.refuse(&job, Refusal::new(RefusalCode::NotJoined, text));
        }
        let group = match codec::read_group(&mut job.body) {
            Ok(group) => group,
            Err(error) => return self.refuse(&job, error.into()),
        };
        let mut groups = self.groups.lock();
        if let Some(waiting) = groups.get_mut(&group) {
            waiting.push_back(job);
            return;
        }
        groups.insert(group, VecDeque::new());
        drop(groups);
        let turn = Turn {
            session: self.clone(),
            group,
        };
        self.spawn(turn.work(job));
    }

    /// Whether the peer belongs to the cluster, and its program knows what is written there.
    fn takes_part(&self) -> bool {
        self.remote.joined && self.shared.local.admits(self.remote.feature_level)
    }

    /// Runs until the server is to end at once.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let abort = self.shared.abort.clone();
        self.tasks.spawn(async move {
            abort.run_until_cancelled(work).await;
        });
    }

    /// Carries out a request and sends the answer. What is left of a request when the connection is lost goes on: the
    /// group decides what becomes of it, as with any message that was received.
    async fn carry_out(&self, group: Option<GroupId>, job: Job) {
        let (kind, request) = (job.kind, job.request);
        let result = match group {
            Some(group) => self.serve_group(group, kind, job.body.clone()).await,
            None => self.serve_call(job.body.clone()).await,
        };
        match result {
            Ok(body) => self.send(body.finish(FrameKind::Reply(kind), request)),
            Err(refusal) => self.refuse(&job, refusal),
        }
        drop(job);
        self.answered.notify_one();
    }

    async fn serve_call(&self, body: Bytes) -> Result<BodyWriter, Refusal> {
        let (kind, body) = codec::decode_call(body)?;
        let (from, joined) = (self.remote.id, self.takes_part());
        let answer = self.shared.service.call(from, joined, kind, body).await?;
        Ok(codec::encode_call_reply(answer))
    }

    async fn serve_group(
        &self,
        group: GroupId,
        kind: RequestKind,
        body: Bytes,
    ) -> Result<BodyWriter, Refusal> {
        let (service, from) = (&self.shared.service, self.remote.id);
        let snapshots = &self.shared.snapshots;
        Ok(match kind {
            RequestKind::Append => {
                let request = codec::decode_append(body)?;
                codec::encode_append_reply(&service.append(from, group, request).await?)
            }
            RequestKind::Vote | RequestKind::PreVote => {
                let request = codec::decode_vote(body)?;
                let pre_vote = kind == RequestKind::PreVote;
                codec::encode_vote_reply(&service.vote(from, group, request, pre_vote).await?)
            }
            RequestKind::TransferLeader => {
                let request = codec::decode_transfer(body)?;
                codec::encode_transfer_reply(&service.transfer_leader(from, group, request).await?)
            }
            RequestKind::SnapshotBegin => {
                let announced = codec::decode_announcement(body)?;
                codec::encode_received(snapshots.begin(from, group, announced)?)
            }
            RequestKind::SnapshotPiece => {
                let piece = codec::decode_piece(body)?;
                codec::encode_received(snapshots.piece(from, group, &piece)?)
            }
            RequestKind::SnapshotEnd => {
                let id = codec::decode_snapshot_end(body)?;
                let (vote, snapshot) = snapshots.end(from, group, id)?;
                let installed = service.snapshot(from, group, vote, snapshot).await?;
                codec::encode_snapshot_reply(&installed)
            }
            RequestKind::Ping | RequestKind::Call => {
                return Err(Refusal::new(RefusalCode::Malformed, "not of a group"));
            }
        })
    }

    fn refuse(&self, job: &Job, refusal: Refusal) {
        let body = codec::encode_refusal(&refusal);
        self.send(body.finish(FrameKind::Failed, job.request));
    }

    /// A peer that reads no answers is no use.
    fn send(&self, frame: OutgoingFrame) {
        if !frame.fits() {
            tracing::error!(peer = %self.remote.id, bytes = frame.bytes(), "an answer is too long");
            self.ended.cancel();
        } else if self.outbox.push(frame).is_err() {
            self.ended.cancel();
        }
    }

    /// Waits until everything that was read is answered, and the answers are written.
    async fn drained(&self) {
        let mut ticks = interval(std::time::Duration::from_millis(5));
        loop {
            let idle = self.in_flight.available_permits() == PEER_REQUESTS_IN_FLIGHT_MAX;
            if idle && self.outbox.is_empty() {
                return;
            }
            tokio::select! {
                () = self.answered.notified() => {}
                _ = ticks.tick() => {}
            }
        }
    }

    /// Waits until the other end, which asks now and then whether we are here, has been silent for too long.
    async fn fall_silent(&self, progress: &Progress) {
        let patience = self.shared.patience.silence * 2;
        let mut ticks = interval(patience / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while progress.silence() < patience {
            ticks.tick().await;
        }
    }
}

/// A group whose requests are being carried out. However it ends, the next request of the group begins anew.
struct Turn {
    session: Arc<Session>,
    group: GroupId,
}

impl Turn {
    async fn work(self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next {
            self.session.carry_out(Some(self.group), job).await;
            next = self.next();
        }
    }

    /// The next request; none ends the turn, under the same lock.
    fn next(&self) -> Option<Job> {
        let mut groups = self.session.groups.lock();
        let job = groups.get_mut(&self.group).and_then(VecDeque::pop_front);
        if job.is_none() {
            groups.remove(&self.group);
        }
        job
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.session.groups.lock().remove(&self.group);
        }
    }
}

async fn permits(budget: &Arc<Semaphore>, count: usize) -> Result<OwnedSemaphorePermit, WireError> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let permit = budget.clone().acquire_many_owned(count).await;
    permit.map_err(|_| WireError::Closed)
}
