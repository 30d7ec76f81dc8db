//! Request frames of every API and version, mutated: header, schema walk, codec.

use kafka_protocol::messages::RequestHeader as WireHeader;
use kafka_protocol::protocol::{Encodable, StrBytes};
use tidelog_tests::allocations::measure;
use tidelog_tests::hostile::{cases, mutate};

use super::*;
use crate::frame::read_request_header;

/// What decoding may take for each byte of a frame: the smallest elements have three bytes and become structs of some
/// hundred.
const BYTES_PER_BYTE_MAX: usize = 100;

/// What it may take whatever the frame: the text of an error, the first places of a vector.
const BYTES_MIN: usize = 4096;

/// Mutants of each API and version in one case.
const MUTANTS: usize = 4;

fn frame<T: Request>(version: i16, seed: u64) -> Vec<u8> {
    let header_version = key::<T>().request_header_version(version);
    let client = StrBytes::from_static_str("hostile");
    let header = WireHeader::default()
        .with_request_api_key(T::KEY)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(client));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, header_version).unwrap();
    let body = Draw::body(key::<T>(), version, seed, seed.is_multiple_of(2));
    frame.put_slice(&body);
    frame.to_vec()
}

struct Frames(Vec<Vec<u8>>, u64);

impl Each for Frames {
    fn each<T: Request + PartialEq + std::fmt::Debug + Default>(&mut self, min: i16, max: i16) {
        self.0
            .extend((min..=max).map(|version| frame::<T>(version, self.1)));
    }
}

/// Reads a frame as the broker does; whatever comes out must read back as itself.
struct Reads<'a> {
    body: &'a Bytes,
    key: i16,
    version: i16,
    decoded: u64,
}

impl Each for Reads<'_> {
    fn each<T: Request + PartialEq + std::fmt::Debug + Default>(&mut self, _: i16, _: i16) {
        if self.key != T::KEY {
            return;
        }
        let (body, version) = (self.body, self.version);
        let what = || format!("{:?} v{version}: {body:?}", key::<T>());
        let (message, held) = measure(|| decode_request::<T>(&mut body.clone(), version));
        let most = BYTES_MIN + BYTES_PER_BYTE_MAX * body.len();
        assert!(held <= most, "{held} bytes of memory for {}", what());
        let Ok(message) = message else { return };
        self.decoded += 1;
        let mut again = BytesMut::new();
        message
            .encode(&mut again, version)
            .unwrap_or_else(|error| panic!("{error}: {}", what()));
        let back = decode_request::<T>(&mut again.freeze(), version);
        assert_eq!(back.as_ref(), Ok(&message), "{}", what());
    }
}

#[test]
fn mutated_frames_are_read_whole_or_refused() {
    let (mut sent, mut decoded) = (0, 0);
    cases("request frames", 40, |case, random| {
        let mut frames = Frames(Vec::new(), case);
        for_each_api(&mut frames);
        let frames = frames.0;
        for frame in &frames {
            for _ in 0..MUTANTS {
                let mut mutant = frame.clone();
                mutate(random, &mut mutant, &frames);
                sent += 1;
                let mut body = Bytes::from(mutant);
                let Ok(header) = read_request_header(&mut body) else {
                    continue;
                };
                let mut reads = Reads {
                    body: &body,
                    key: header.api_key as i16,
                    version: header.api_version,
                    decoded: 0,
                };
                for_each_api(&mut reads);
                decoded += reads.decoded;
            }
        }
    });
    assert!(decoded * 10 > sent, "only {decoded} of {sent} got that far");
}
