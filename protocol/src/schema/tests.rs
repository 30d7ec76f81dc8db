//! Compares the schemas with the codec, on bodies drawn from the schemas, and throws bad bytes at both.

mod hostile;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::api::SERVED;
use crate::frame::decode_request;

/// Writes a random body along a schema.
struct Draw {
    random: StdRng,
    version: i16,
    is_flexible: bool,
    with_tags: bool,
    out: Vec<u8>,
}

impl Draw {
    fn body(api: ApiKey, version: i16, seed: u64, with_tags: bool) -> Vec<u8> {
        let schema = schema_of(api).unwrap();
        let mut draw = Draw {
            random: StdRng::seed_from_u64(seed),
            version,
            is_flexible: version >= schema.flexible,
            with_tags,
            out: Vec::new(),
        };
        draw.fields(schema.fields);
        draw.out
    }

    fn fields(&mut self, fields: &'static [Field]) {
        let (tagged, plain): (Vec<_>, Vec<_>) = fields
            .iter()
            .filter(|field| (field.min..=field.max).contains(&self.version))
            .partition(|field| field.tag.is_some());
        plain.into_iter().for_each(|field| self.value(&field.kind));
        if !self.is_flexible {
            return;
        }
        if !self.with_tags {
            return self.out.put_u8(0);
        }
        varint::write_unsigned(&mut self.out, tagged.len() as u32 + 1);
        for field in tagged {
            let body = std::mem::take(&mut self.out);
            self.value(&field.kind);
            let value = std::mem::replace(&mut self.out, body);
            self.tag(field.tag.unwrap(), &value);
        }
        self.tag(1000, b"unknown");
    }

    fn tag(&mut self, tag: u32, value: &[u8]) {
        varint::write_unsigned(&mut self.out, tag);
        varint::write_unsigned(&mut self.out, value.len() as u32);
        self.out.put_slice(value);
    }

    fn value(&mut self, kind: &'static Kind) {
        match kind {
            // Ones and zeros are valid whatever the field is: also a boolean.
            Kind::Fixed(len) => {
                for _ in 0..*len {
                    let byte = self.random.random_range(0..2);
                    self.out.put_u8(byte);
                }
            }
            Kind::Text => {
                let len = self.random.random_range(0..20);
                if self.is_flexible {
                    self.len(len)
                } else {
                    self.out.put_i16(len as i16)
                }
                self.out.put_bytes(b'x', len);
            }
            Kind::Blob => {
                let len = self.random.random_range(0..300);
                self.len(len);
                self.out.put_bytes(7, len);
            }
            Kind::List(element) => {
                let count = self.random.random_range(0..4);
                self.len(count);
                (0..count).for_each(|_| self.value(element));
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Optional(fields) => {
                let present: bool = self.random.random();
                self.out.put_i8(if present { 1 } else { -1 });
                if present {
                    self.fields(fields);
                }
            }
        }
    }

    fn len(&mut self, len: usize) {
        if self.is_flexible {
            varint::write_unsigned(&mut self.out, len as u32 + 1);
        } else {
            self.out.put_i32(len as i32);
        }
    }
}

/// What a test does with each request type.
trait Each {
    fn each<T: Request + PartialEq + std::fmt::Debug + Default>(&mut self, min: i16, max: i16);
}

/// Calls `test` for every served API, and checks that none is missing.
fn for_each_api(test: &mut impl Each) {
    struct Visitor<'a, E>(&'a mut E, Vec<i16>);
    impl<E: Each> Visitor<'_, E> {
        fn visit<T: Request + PartialEq + std::fmt::Debug + Default>(&mut self) -> &mut Self {
            let range = crate::api::served(T::KEY).unwrap();
            self.0.each::<T>(range.min, range.max);
            self.1.push(T::KEY);
            self
        }
    }
    let mut visitor = Visitor(test, Vec::new());
    visitor
        .visit::<ProduceRequest>()
        .visit::<FetchRequest>()
        .visit::<ListOffsetsRequest>()
        .visit::<MetadataRequest>()
        .visit::<OffsetCommitRequest>()
        .visit::<OffsetFetchRequest>()
        .visit::<FindCoordinatorRequest>()
        .visit::<JoinGroupRequest>()
        .visit::<HeartbeatRequest>()
        .visit::<LeaveGroupRequest>()
        .visit::<SyncGroupRequest>()
        .visit::<DescribeGroupsRequest>()
        .visit::<ListGroupsRequest>()
        .visit::<ApiVersionsRequest>()
        .visit::<CreateTopicsRequest>()
        .visit::<DeleteTopicsRequest>()
        .visit::<DeleteRecordsRequest>()
        .visit::<InitProducerIdRequest>()
        .visit::<OffsetForLeaderEpochRequest>()
        .visit::<DescribeConfigsRequest>()
        .visit::<AlterConfigsRequest>()
        .visit::<DescribeLogDirsRequest>()
        .visit::<CreatePartitionsRequest>()
        .visit::<DeleteGroupsRequest>()
        .visit::<ElectLeadersRequest>()
        .visit::<IncrementalAlterConfigsRequest>()
        .visit::<AlterPartitionReassignmentsRequest>()
        .visit::<ListPartitionReassignmentsRequest>()
        .visit::<OffsetDeleteRequest>()
        .visit::<DescribeQuorumRequest>()
        .visit::<UpdateFeaturesRequest>()
        .visit::<DescribeClusterRequest>()
        .visit::<DescribeProducersRequest>()
        .visit::<UnregisterBrokerRequest>()
        .visit::<ListConfigResourcesRequest>()
        .visit::<DescribeTopicPartitionsRequest>();
    assert_eq!(
        visitor.1,
        SERVED
            .iter()
            .map(|range| range.key as i16)
            .collect::<Vec<_>>()
    );
}

fn key<T: Request>() -> ApiKey {
    ApiKey::try_from(T::KEY).unwrap()
}

struct Agrees;

impl Each for Agrees {
    fn each<T: Request + PartialEq + std::fmt::Debug + Default>(&mut self, min: i16, max: i16) {
        for version in min..=max {
            for seed in 0..40 {
                let body = Draw::body(key::<T>(), version, seed, false);
                let message: T = decode_request(&mut Bytes::from(body.clone()), version).unwrap();
                let mut again = BytesMut::new();
                message.encode(&mut again, version).unwrap();
                assert_eq!(again, body, "{:?} v{version}", key::<T>());
                let tagged = Draw::body(key::<T>(), version, seed, true);
                decode_request::<T>(&mut Bytes::from(tagged), version)
                    .unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }
}

#[test]
fn schemas_and_codec_agree_on_every_served_version() {
    for_each_api(&mut Agrees);
}

struct Answers;

impl Each for Answers {
    fn each<T: Request + PartialEq + std::fmt::Debug + Default>(&mut self, min: i16, max: i16) {
        let range = <T::Response as kafka_protocol::protocol::Message>::VERSIONS;
        assert!(
            range.min <= min && max <= range.max,
            "{:?} replies: {range}",
            key::<T>()
        );
    }
}

#[test]
fn every_served_version_has_a_reply() {
    for_each_api(&mut Answers);
}

struct Cuts;

impl Each for Cuts {
    fn each<T: Request + PartialEq + std::fmt::Debug + Default>(&mut self, min: i16, max: i16) {
        for version in min..=max {
            let body = Draw::body(key::<T>(), version, 3, true);
            for cut in 0..body.len() {
                let result =
                    decode_request::<T>(&mut Bytes::copy_from_slice(&body[..cut]), version);
                assert!(
                    result.is_err(),
                    "{:?} v{version} cut at {cut} of {}",
                    key::<T>(),
                    body.len()
                );
            }
            let longer = Bytes::from([&body[..], &[0]].concat());
            let result = decode_request::<T>(&mut longer.clone(), version);
            assert_eq!(
                result.ok(),
                decode_request::<T>(&mut Bytes::from(body), version).ok()
            );
        }
    }
}

#[test]
fn cut_bodies_are_refused_and_extended_ones_read() {
    for_each_api(&mut Cuts);
}

/// Bodies that claim the most elements that their length fields can say.
struct Claims;

impl Each for Claims {
    fn each<T: Request + PartialEq + std::fmt::Debug + Default>(&mut self, min: i16, max: i16) {
        for version in min..=max {
            for seed in 0..20 {
                let body = Draw::body(key::<T>(), version, seed, true);
                for at in 0..body.len() {
                    for claim in [
                        &[0xff, 0xff, 0xff, 0xff, 0x0f][..],
                        &[0x7f, 0xff, 0xff, 0xff],
                    ] {
                        let mut hostile = body[..at].to_vec();
                        hostile.put_slice(claim);
                        hostile.put_slice(&body[at..]);
                        let _ = decode_request::<T>(&mut Bytes::from(hostile), version);
                    }
                }
            }
        }
    }
}

/// Runs under the system allocator, which aborts on what the codec alone would ask for.
#[test]
fn huge_claims_allocate_nothing() {
    for_each_api(&mut Claims);
    let metadata = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(decode_request::<MetadataRequest>(&mut metadata.clone(), 12).is_err());
    let error = check_request(ApiKey::Metadata, 12, &metadata);
    assert_eq!(error, Err(SchemaError::Elements("topics")));
}

#[test]
fn elements_are_counted_over_the_whole_request() {
    let body = |count: usize| {
        let mut body = BytesMut::new();
        body.put_i32(count as i32);
        body.put_bytes(0, 2 * count);
        body.freeze()
    };
    let max = limits::REQUEST_ELEMENTS_MAX;
    assert_eq!(check_request(ApiKey::Metadata, 1, &body(max)), Ok(0));
    assert_eq!(
        check_request(ApiKey::Metadata, 1, &body(max + 1)),
        Err(SchemaError::Elements("topics"))
    );
}

#[test]
fn tag_sections_are_bounded_and_exact() {
    // ApiVersions v3: two empty strings, then tags.
    let check = |tags: &[u8]| check_request(ApiKey::ApiVersions, 3, &[&[1, 1], tags].concat());
    assert_eq!(check(&[0]), Ok(0));
    assert_eq!(check(&[1, 9, 2, 0, 0]), Ok(0));
    assert_eq!(check(&[1, 9, 3, 0, 0]), Err(SchemaError::Tags));
    let negative = [1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    assert_eq!(check(&negative), Err(SchemaError::Tags));
    let mut many = Vec::new();
    varint::write_unsigned(&mut many, limits::TAGGED_FIELDS_MAX as u32 + 1);
    many.resize(many.len() + 3 * limits::TAGGED_FIELDS_MAX, 0);
    assert_eq!(check(&many), Err(SchemaError::Tags));
    // Fetch v12, tag 0 (cluster id): a length that is not the field's.
    let mut fetch = Draw::body(ApiKey::Fetch, 12, 0, false);
    fetch.pop();
    fetch.put_slice(&[1, 0, 3, 2, b'c', 0]);
    assert_eq!(
        check_request(ApiKey::Fetch, 12, &fetch),
        Err(SchemaError::Tags)
    );
}

struct Hostile<'a>(&'a [u8], u64, &'a [(proptest::sample::Index, u8)]);

impl Each for Hostile<'_> {
    fn each<T: Request + PartialEq + std::fmt::Debug + Default>(&mut self, min: i16, max: i16) {
        for version in min..=max {
            let _ = decode_request::<T>(&mut Bytes::copy_from_slice(self.0), version);
            let mut body = Draw::body(key::<T>(), version, self.1, true);
            for (at, bits) in self.2 {
                if !body.is_empty() {
                    let at = at.index(body.len());
                    body[at] ^= bits;
                }
            }
            let _ = decode_request::<T>(&mut Bytes::from(body), version);
        }
    }
}

proptest! {
    #[test]
    fn hostile_bodies_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
        seed: u64,
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
    ) {
        for_each_api(&mut Hostile(&bytes, seed, &flips));
    }
}
