//! Those who send slowly, those who take slowly, and frames of the largest size.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidelog_protocol::api::ApiKey;
use tidelog_protocol::compression::Compression;
use tidelog_protocol::encode::encode_request;
use tidelog_protocol::frame::RequestHeader;
use tidelog_protocol::messages::*;

use super::bystander::{batch_of, create_topic, fetch_of, produce_of};
use super::wire::{self, Next};
use super::{BUDGET, MIB, PATIENCE, Target, replies};
use crate::every_version::Asker;

/// Clients of each kind at the same time.
const CLIENTS: usize = 40;

const TOPIC: &str = "slow";

/// A frame with its size prefix.
fn frame_of<Q: tidelog_protocol::Encodable>(api_key: ApiKey, version: i16, request: &Q) -> Vec<u8> {
    let header = RequestHeader {
        api_key,
        api_version: version,
        correlation_id: 1,
        client_id: None,
    };
    encode_request(&header, request)
        .expect("it encodes")
        .concat()
}

fn batch(bytes: usize) -> Bytes {
    batch_of(Compression::None, &vec![7; bytes])
}

/// What a slow sender has not sent yet, and whether it goes on.
struct Slow<'a> {
    stream: TcpStream,
    rest: &'a [u8],
    trickles: bool,
}

impl Slow<'_> {
    fn begin<'a>(address: &str, frame: &'a [u8], sent: usize, trickles: bool) -> Slow<'a> {
        let mut stream = wire::connect(address);
        wire::send_raw(&mut stream, &frame[..sent]);
        Slow {
            stream,
            rest: &frame[sent..],
            trickles,
        }
    }
}

/// Senders that stall in the size prefix, behind it, in the header, in the body, or send a byte now and then, each
/// with a frame small or large. The broker gives all of them up.
#[test]
fn those_who_send_slowly_are_given_up_and_hold_up_nobody() {
    let target = Target::start(&[]);
    let address = target.broker.address();
    let small = frame_of(ApiKey::Fetch, 11, &fetch_of(TOPIC, 0));
    let large = frame_of(ApiKey::Produce, 9, &produce_of(TOPIC, batch(2 << 20)));
    let mut slow = Vec::new();
    for client in 0..CLIENTS {
        // Large frames wait for each other, as all that arrive have half of the budget: so there are fewer of them.
        let frames = if client < CLIENTS / 6 {
            vec![&small, &large]
        } else {
            vec![&small]
        };
        for frame in frames {
            for sent in [1, 3, 4, 5, 11, frame.len() / 2, frame.len() - 1] {
                slow.push(Slow::begin(address, frame, sent, client % 2 == 0));
            }
        }
    }
    let begun = Instant::now();
    while !slow.is_empty() {
        assert!(
            begun.elapsed() < 2 * PATIENCE,
            "{} are still there",
            slow.len()
        );
        slow.retain_mut(|one| {
            // The last byte is never sent.
            if let ([byte, rest @ ..], true) = (one.rest, one.trickles)
                && !rest.is_empty()
            {
                one.rest = rest;
                wire::send_raw(&mut one.stream, &[*byte]);
            }
            match wire::next(&mut one.stream, Duration::from_millis(1)) {
                Next::Silence => true,
                Next::Closed => false,
                Next::Reply(_) => panic!("a reply to an unfinished request"),
            }
        });
    }
    eprintln!("slow senders were given up within {:?}", begun.elapsed());
    target.finish(0).print("slow senders");
}

/// Clients that ask for much and take nothing of it.
#[test]
fn those_who_take_slowly_are_given_up_and_hold_up_nobody() {
    let target = Target::start(&["connections.max.idle.ms=4000"]);
    let address = target.broker.address();
    let mut asker = Asker::connect(address);
    create_topic(&mut asker, TOPIC);
    for _ in 0..10 {
        let request = produce_of(TOPIC, batch(900_000));
        let reply: ProduceResponse = asker.ask(ApiKey::Produce, 9, &request);
        assert_eq!(reply.responses[0].partition_responses[0].error_code, 0);
    }
    drop(asker);
    let mut request = fetch_of(TOPIC, 0);
    request.topics[0].partitions[0].partition_max_bytes = 8 << 20;
    let frame = frame_of(ApiKey::Fetch, 11, &request);
    let mut slow: Vec<_> = (0..CLIENTS).map(|_| wire::connect(address)).collect();
    for stream in &mut slow {
        wire::send_raw(stream, &frame.repeat(100));
    }
    let begun = Instant::now();
    // The bystander's two are left.
    while target.broker.metric("tidelog_kafka_connections") > 2 {
        assert!(
            begun.elapsed() < PATIENCE,
            "a client that takes nothing is kept"
        );
        thread::sleep(Duration::from_millis(100));
    }
    drop(slow);
    target.finish(0).print("slow readers");
}

/// Frames of almost 100 MiB, more of them at once than the budget holds.
#[test]
fn the_largest_frames_are_taken_one_after_the_other() {
    const CLIENTS: usize = 6;
    let largest = 256 * MIB;
    let budget = format!("queued.max.request.bytes={largest}");
    let target = Target::start(&[
        &budget,
        "socket.request.max.bytes=104857600",
        "message.max.bytes=104857600",
    ]);
    let address = target.broker.address();
    create_topic(&mut Asker::connect(address), TOPIC);
    let frame = frame_of(
        ApiKey::Produce,
        9,
        &produce_of(TOPIC, batch((99 << 20) + (900 << 10))),
    );
    assert!(frame.len() > 99 << 20 && frame.len() <= (100 << 20) + 4);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut stream = wire::connect(address);
                wire::send_raw(&mut stream, &frame);
                let Next::Reply(reply) = wire::next(&mut stream, 2 * PATIENCE) else {
                    panic!("not answered");
                };
                replies::check(&frame[4..], reply.clone()).expect("a reply");
                let mut body = reply;
                let header =
                    tidelog_protocol::frame::read_response_header(&mut body, ApiKey::Produce, 9);
                header.expect("a header");
                let reply: ProduceResponse =
                    tidelog_protocol::frame::decode_response(&mut body, ApiKey::Produce, 9)
                        .expect("a reply");
                assert_eq!(reply.responses[0].partition_responses[0].error_code, 0);
            });
        }
    });
    target.finish(largest - BUDGET).print("largest frames");
}
