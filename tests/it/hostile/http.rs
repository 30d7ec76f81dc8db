//! Hostile clients of the HTTP listener.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rand::RngExt;
use tidelog_tests::hostile::{cases, mutate};

use super::{PATIENCE, Target, wire};

/// Connections that begin a request and do not end it.
const SLOW: usize = 1_000;

/// What is served to those who wait at the end.
const HTTP_CONNECTIONS_MAX: usize = 128;

/// Sends bytes and reads until the broker ends the connection.
fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = wire::connect(&address.to_string());
    wire::send_raw(&mut stream, bytes);
    wire::end(&stream);
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("socket option");
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let kind = error.kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "{bytes:?}");
    }
    answer
}

#[test]
fn garbage_and_huge_headers_are_refused() {
    let target = Target::start(&[]);
    let address = target.broker.http_address();
    let valid = [
        &b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\n\r\n"[..],
        b"GET /health/ready HTTP/1.0\r\n\r\n",
        b"POST /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ]
    .map(<[u8]>::to_vec);
    cases("HTTP requests", 600, |_, random| {
        let mut request = valid[random.random_range(0..valid.len())].clone();
        mutate(random, &mut request, &valid);
        let answer = answer(address, &request);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1."),
            "{request:?}"
        );
    });
    let huge = [
        [&b"GET /"[..], &vec![b'a'; 1 << 20][..]].concat(),
        [
            &b"GET / HTTP/1.1\r\nHost: x\r\nX: "[..],
            &vec![b'a'; 32 << 20][..],
        ]
        .concat(),
        [
            &b"GET / HTTP/1.1\r\nHost: x\r\n"[..],
            &b"a: b\r\n".repeat(1 << 20)[..],
        ]
        .concat(),
        [
            &b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"[..],
            &vec![0; 32 << 20][..],
        ]
        .concat(),
    ];
    for request in huge {
        let answer = answer(address, &request);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
    target.finish(0).print("HTTP garbage");
}

/// Slow ones do not keep others from asking, however many there are; most are given up for newer ones.
#[test]
fn requests_that_never_end_keep_nobody_from_asking() {
    let mut target = Target::start(&[]);
    let address = target.broker.http_address();
    let mut slow: Vec<TcpStream> = Vec::new();
    for number in 0..SLOW {
        let mut stream = wire::connect(&address.to_string());
        let part: &[u8] = if number % 2 == 0 { b"GET /metr" } else { b"" };
        wire::send_raw(&mut stream, part);
        slow.push(stream);
        if number % 100 == 0 {
            target.broker.assert_ready();
        }
    }
    let begun = Instant::now();
    let is_open = |stream: &mut TcpStream| {
        let _ = stream.write_all(b"x");
        stream
            .set_read_timeout(Some(Duration::from_millis(5)))
            .expect("socket option");
        let read = stream.read(&mut [0; 16]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    loop {
        slow.retain_mut(is_open);
        if slow.len() <= HTTP_CONNECTIONS_MAX {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{} are kept", slow.len());
    }
    target.broker.assert_ready();
    drop(slow);
    target.finish(0).print("slow HTTP clients");
}
