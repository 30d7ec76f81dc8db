//! Connections by the thousand that do nothing, and such as speak something else.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt;
use tidelog_protocol::StrBytes;
use tidelog_protocol::api::ApiKey;
use tidelog_protocol::encode::encode_request;
use tidelog_protocol::frame::RequestHeader;
use tidelog_protocol::messages::ApiVersionsRequest;
use tidelog_tests::hostile::cases;

use super::wire::{self, Next};
use super::{PATIENCE, Target, replies};

/// Connections that are open at the same time; the open-file limit of this process and of the broker is above it.
const IDLE: usize = 5_000;

/// What an idle connection may take of the broker's memory.
const IDLE_BYTES_MAX: u64 = 64 * 1024;

/// How long they are idle while a bystander works.
const IDLE_TIME: Duration = Duration::from_secs(3);

/// A frame without size prefix that asks for the versions.
fn api_versions() -> Vec<u8> {
    let header = RequestHeader {
        api_key: ApiKey::ApiVersions,
        api_version: 3,
        correlation_id: 1,
        client_id: None,
    };
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("idle"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    encode_request(&header, &request)
        .expect("it encodes")
        .concat()[4..]
        .to_vec()
}

fn ask(stream: &mut TcpStream, frame: &[u8]) {
    wire::send(stream, frame);
    match wire::next(stream, PATIENCE) {
        Next::Reply(reply) => replies::check(frame, reply).expect("the versions"),
        Next::Closed => panic!("closed"),
        Next::Silence => panic!("not answered"),
    }
}

#[test]
fn thousands_of_idle_connections_cost_little_and_hold_up_nobody() {
    let target = Target::start(&[]);
    let frame = api_versions();
    let before = target.broker.memory().resident;
    let begun = Instant::now();
    let mut open: Vec<TcpStream> = Vec::with_capacity(IDLE);
    for number in 0..IDLE {
        let mut stream = wire::connect(target.broker.address());
        // A client that asked something has all of its buffers.
        if number % 2 == 0 {
            ask(&mut stream, &frame);
        }
        open.push(stream);
    }
    let opened_in = begun.elapsed();
    thread::sleep(IDLE_TIME);
    // The bystander has two of its own.
    assert_eq!(
        target.broker.metric("tidelog_kafka_connections"),
        IDLE as u64 + 2
    );
    let each = target.broker.memory().resident.saturating_sub(before) / IDLE as u64;
    eprintln!(
        "{IDLE} connections opened in {opened_in:?}; an idle one takes {each} bytes of memory"
    );
    assert!(
        each <= IDLE_BYTES_MAX,
        "an idle connection takes {each} bytes"
    );
    for stream in open.iter_mut().step_by(50) {
        ask(stream, &frame);
    }
    drop(open);
    target
        .finish(IDLE as u64 * IDLE_BYTES_MAX)
        .print("idle connections");
}

#[test]
fn what_is_not_kafka_is_closed() {
    let target = Target::start(&[]);
    let address = target.broker.address();
    let greetings: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff\0\x12\0\x03",
    ];
    cases("garbage", 600, |case, random| {
        let mut stream = wire::connect(address);
        let bytes = match greetings.get(case as usize) {
            Some(greeting) => greeting.to_vec(),
            None => (0..random.random_range(1..5_000))
                .map(|_| random.random())
                .collect(),
        };
        wire::send_raw(&mut stream, &bytes);
        wire::end(&stream);
        match wire::next(&mut stream, PATIENCE) {
            Next::Closed => {}
            // Noise may hit upon an ApiVersions request.
            Next::Reply(reply) => replies::check(&bytes[4..], reply).expect("a reply"),
            Next::Silence => panic!("neither answered nor closed: {bytes:02x?}"),
        }
    });
    target.finish(0).print("garbage");
}
