//! Bytes that nobody who means well would send, before and after the handshake, to either side.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::super::frame::{FRAME_VERSION, FrameKind, OutgoingFrame, RequestKind};
use super::super::handshake;
use super::super::wire::{FrameReader, Progress, WireError};
use super::*;

/// Each run has its own seed, which a failure names.
const RUNS: u64 = 300;

fn bytes_of(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    OutgoingFrame::of(kind, 7, body).into_pieces().concat()
}

/// A header of any kind and length.
fn header(code: u8, bytes: u32) -> Vec<u8> {
    let mut header = bytes.to_be_bytes().to_vec();
    header.extend([FRAME_VERSION, code, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    header
}

type Met = (FrameReader<OwnedReadHalf>, OwnedWriteHalf);

/// A connection to a server after its handshake.
async fn meet(server: &Ends, lane: Lane) -> Met {
    let stream = TcpStream::connect(server.server.address()).await;
    let (reader, mut writer) = stream.expect("connects").into_split();
    let mut frames = FrameReader::new(reader, Progress::new());
    let me = local(replica(9));
    handshake::connect(&me, None, lane, &mut frames, &mut writer, PATIENCE)
        .await
        .expect("meets");
    (frames, writer)
}

/// Sends bytes after a handshake and reads until the server closes, which it must.
async fn is_closed_by(server: &Ends, lane: Lane, bytes: &[u8]) -> Vec<u8> {
    let (mut frames, mut writer) = meet(server, lane).await;
    writer.write_all(bytes).await.expect("is sent");
    let mut kinds = Vec::new();
    let end = tokio::time::timeout(PATIENCE, async {
        loop {
            match frames.frame().await {
                Ok(frame) => kinds.push(frame.kind.code()),
                Err(error) => return error,
            }
        }
    });
    let end = end.await.expect("the server closes");
    assert!(matches!(end, WireError::Closed | WireError::Io(_)), "{end}");
    kinds
}

async fn still_serves(server: &Ends) {
    let one = Ends::start(1).await;
    one.know(server);
    one.connect(server.me).await;
    assert_eq!(
        one.call(server.me, ECHO).await,
        Ok(Bytes::from_static(b"hello"))
    );
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_beyond_a_kinds_maximum_end_the_connection_at_once() {
    let server = Ends::start(2).await;
    for code in 0..=u8::MAX {
        let answers = is_closed_by(&server, Lane::Append, &header(code, u32::MAX)).await;
        assert_eq!(answers, [0u8; 0], "kind {code}");
        if let Some(kind) = FrameKind::of_code(code) {
            let bytes = u32::try_from(kind.body_bytes_max() + 1).expect("is small");
            let answers = is_closed_by(&server, Lane::Append, &header(code, bytes)).await;
            assert_eq!(answers, [0u8; 0], "kind {code}");
        }
    }
    // What is allowed in general, and not by the lane of votes.
    let long = header(FrameKind::Request(RequestKind::Append).code(), 1 << 20);
    assert_eq!(is_closed_by(&server, Lane::Control, &long).await, [0u8; 0]);
    still_serves(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_make_no_sense_are_answered_so_and_the_connection_stays() {
    let server = Ends::start(2).await;
    let mut bytes = Vec::new();
    let kinds = [
        FrameKind::Request(RequestKind::Append),
        FrameKind::Request(RequestKind::Vote),
        FrameKind::Request(RequestKind::PreVote),
        FrameKind::Request(RequestKind::TransferLeader),
        FrameKind::Request(RequestKind::SnapshotBegin),
        FrameKind::Request(RequestKind::SnapshotPiece),
        FrameKind::Request(RequestKind::SnapshotEnd),
        FrameKind::Request(RequestKind::Call),
    ];
    for kind in kinds {
        bytes.extend(bytes_of(kind, b""));
        bytes.extend(bytes_of(kind, b"\xff\xff\xff nonsense"));
        let mut of_group = crate::raft::codec::header().to_vec();
        of_group.extend([0; 21]);
        bytes.extend(bytes_of(kind, &of_group));
    }
    let (mut frames, mut writer) = meet(&server, Lane::Append).await;
    writer.write_all(&bytes).await.expect("is sent");
    for _ in 0..3 * kinds.len() {
        let answer = tokio::time::timeout(PATIENCE, frames.frame()).await;
        let answer = answer.expect("is answered").expect("is open");
        assert_eq!(answer.kind, FrameKind::Failed);
    }
    let ping = bytes_of(FrameKind::Request(RequestKind::Ping), b"");
    writer.write_all(&ping).await.expect("is sent");
    let pong = frames.frame().await.expect("is open");
    assert_eq!(pong.kind, FrameKind::Reply(RequestKind::Ping));
    assert!(server.recorder.appends.lock().is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_cut_anywhere_is_not_carried_out() {
    let server = Ends::start(2).await;
    let body = super::super::codec::encode_append(group(1), long_append(5, 40));
    let body = body.expect("can be sent");
    let whole = body
        .finish(FrameKind::Request(RequestKind::Append), 1)
        .into_pieces()
        .concat();
    for len in 0..whole.len() {
        let (mut frames, mut writer) = meet(&server, Lane::Append).await;
        writer.write_all(&whole[..len]).await.expect("is sent");
        writer.shutdown().await.expect("closes");
        let end = frames.frame().await;
        assert!(end.is_err(), "{len}: {end:?}");
    }
    assert!(server.recorder.appends.lock().is_empty());
    still_serves(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_from_strangers_end_with_a_closed_connection() {
    let server = Ends::start(2).await;
    for seed in 0..RUNS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = vec![0; random.random_range(0..2_000)];
        random.fill(&mut bytes[..]);
        // Half of them look like a handshake at first.
        if random.random_bool(0.5) {
            let len = u32::try_from(bytes.len()).expect("is small");
            bytes = [header(random.random_range(0..6), len), bytes].concat();
        }
        let mut stream = TcpStream::connect(server.server.address())
            .await
            .expect("connects");
        // It may be closed before all is sent.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "seed {seed}: it is not closed");
        assert!(answer.len() < 1_000, "seed {seed}: {} bytes", answer.len());
    }
    assert!(server.server.connections().is_empty());
    still_serves(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_behind_a_handshake_end_with_a_closed_connection() {
    let server = Ends::start(2).await;
    for seed in 0..RUNS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = Vec::new();
        for _ in 0..random.random_range(0..8) {
            let kind = 16 + random.random_range(0..9u8);
            let mut body = vec![0; random.random_range(0..300)];
            random.fill(&mut body[..]);
            if random.random_bool(0.7) {
                let opened = crate::raft::codec::header();
                let len = opened.len().min(body.len());
                body[..len].copy_from_slice(&opened[..len]);
            }
            let len = u32::try_from(body.len()).expect("is small");
            bytes.extend(header(kind, len));
            bytes.extend(body);
        }
        bytes.extend(header(FrameKind::Hello.code(), 0));
        let lane = Lane::ALL[random.random_range(0..3)];
        is_closed_by(&server, lane, &bytes).await;
    }
    still_serves(&server).await;
    server.stop().await;
}

/// A listener that makes handshakes as replica 2 and then answers whatever it likes.
async fn impostor(answer: fn(u64) -> Vec<u8>) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let task = tokio::spawn(async move {
        let mut number = 0;
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (reader, mut writer) = stream.into_split();
            let mut frames = FrameReader::new(reader, Progress::new());
            let me = local(replica(2));
            if handshake::accept(&me, &mut frames, &mut writer, PATIENCE)
                .await
                .is_ok()
            {
                let _ = writer.write_all(&answer(number)).await;
            }
            number += 1;
            open.push((frames, writer));
        }
    });
    (address, task)
}

fn random_answer(seed: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = vec![0; random.random_range(16..500)];
    random.fill(&mut bytes[..]);
    bytes
}

fn request_instead(_: u64) -> Vec<u8> {
    header(FrameKind::Request(RequestKind::Vote).code(), 0)
}

fn huge_answer(_: u64) -> Vec<u8> {
    header(FrameKind::Reply(RequestKind::Append).code(), u32::MAX)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_answers_garbage_is_left() {
    for answer in [random_answer, request_instead, huge_answer] {
        let one = Ends::start(1).await;
        let (address, task) = impostor(answer).await;
        one.directory.set(BrokerId(2), address);
        let senseless =
            |status: &PeerStatus| matches!(status, PeerStatus::Lost(Loss::Senseless(_)));
        one.status(replica(2), senseless).await;
        let before = one.pool.attempts(replica(2));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let attempts = one.pool.attempts(replica(2)) - before;
        assert!(attempts <= 20, "{attempts} attempts in a second");
        one.stop().await;
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_something_else_is_not_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let one = Ends::start(1).await;
    let address = listener.local_addr().expect("is bound");
    one.directory.set(BrokerId(2), address);
    one.pool.keep(replica(2));
    let (stream, _) = listener.accept().await.expect("is tried");
    let (reader, mut writer) = stream.into_split();
    let mut frames = FrameReader::new(reader, Progress::new());
    let me = local(replica(2));
    let met = handshake::accept(&me, &mut frames, &mut writer, PATIENCE).await;
    met.expect("meets");
    one.status(replica(2), |status| {
        matches!(status, PeerStatus::Connected { .. })
    })
    .await;
    let answering = async {
        loop {
            let asked = frames.frame().await.expect("is open");
            let kind = match asked.kind {
                FrameKind::Request(RequestKind::Call) => FrameKind::Reply(RequestKind::Vote),
                _ => FrameKind::Reply(RequestKind::Ping),
            };
            let answer = OutgoingFrame::of(kind, asked.request, b"");
            let answer = answer.into_pieces().concat();
            writer.write_all(&answer).await.expect("is sent");
            if asked.kind == FrameKind::Request(RequestKind::Call) {
                return;
            }
        }
    };
    let (answer, ()) = tokio::join!(one.call(replica(2), ECHO), answering);
    assert_eq!(answer, Err(RequestError::Unreachable(replica(2))));
    let senseless = |status: &PeerStatus| matches!(status, PeerStatus::Lost(Loss::Senseless(_)));
    one.status(replica(2), senseless).await;
    one.stop().await;
}
