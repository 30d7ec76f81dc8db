//! Frames of every API in every version, broken in every way, over sockets.
//!
//! Made of the requests that [`every_version`](crate::every_version) asks: cut at each byte, cut off in the middle of
//! sending, extended, bits flipped, numbers and lengths replaced by what breaks most, bodies of noise, mutated at will.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use tidelog_protocol::api::{self, ApiKey};
use tidelog_protocol::frame::{decode_request, read_request_header};
use tidelog_protocol::messages::*;
use tidelog_tests::hostile::{cases, mutate};

use super::wire::{self, Next};
use super::{PATIENCE, Target, replies};
use crate::every_version::{Asked, Asker, ask_everything};

/// Clients that throw frames at the broker at the same time.
const THROWERS: usize = 4;

/// How long a request that may wait, or has no answer, is waited for before its client ends.
const WAIT: Duration = Duration::from_millis(100);

/// Frames of a case, by how they are broken, beside those that are cut at each byte.
const FLIPPED: usize = 10;
const BOMBS: usize = 30;
const MUTATED: usize = 20;
const NOISE: usize = 3;

/// What a length or a count may claim, in each form that there is.
const LENGTHS: [&[u8]; 10] = [
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x80, 0x00, 0x00, 0x00],
    &[0xff, 0xff, 0xff, 0xfe],
    &[0x00, 0x0f, 0x42, 0x3f],
    &[0x05, 0xf5, 0xe1, 0x00],
    &[0x7f, 0xff],
    &[0x80, 0x00],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
];

/// Valid requests for more partitions than this are left out: what they ask for takes its time and its memory.
const PARTITIONS_MAX: i32 = 20;

/// A frame that somebody sends.
struct Hostile {
    what: &'static str,
    frame: Vec<u8>,
    /// Bytes that the size prefix claims beside those that are sent.
    missing: usize,
    /// The client ends its side at once.
    ends: bool,
}

impl Hostile {
    fn whole(what: &'static str, frame: Vec<u8>, random: &mut StdRng) -> Hostile {
        Hostile {
            what,
            frame,
            missing: 0,
            ends: random.random_bool(0.3),
        }
    }

    /// API that the frame names.
    fn api(&self) -> Option<ApiKey> {
        let key = i16::from_be_bytes(*self.frame.first_chunk()?);
        Some(api::served(key)?.key)
    }

    /// Whether it may be a request that waits for something, or one without an answer.
    fn may_be_silent(&self) -> bool {
        use ApiKey::*;
        let waiting = [
            Produce,
            Fetch,
            JoinGroup,
            SyncGroup,
            CreateTopics,
            DeleteTopics,
            CreatePartitions,
            DeleteRecords,
        ];
        self.api().is_some_and(|api| waiting.contains(&api))
    }

    /// Whether it is a valid request for a great many partitions.
    fn asks_for_too_much(&self) -> bool {
        let mut body = Bytes::copy_from_slice(&self.frame);
        let Ok(header) = read_request_header(&mut body) else {
            return false;
        };
        let version = header.api_version;
        match header.api_key {
            ApiKey::CreateTopics => decode_request::<CreateTopicsRequest>(&mut body, version)
                .is_ok_and(|q| q.topics.iter().any(|t| t.num_partitions > PARTITIONS_MAX)),
            ApiKey::CreatePartitions => {
                decode_request::<CreatePartitionsRequest>(&mut body, version)
                    .is_ok_and(|q| q.topics.iter().any(|t| t.count > PARTITIONS_MAX))
            }
            _ => false,
        }
    }
}

/// Where the body of a request begins.
fn body_at(asked: &Asked) -> usize {
    let mut body = Bytes::copy_from_slice(&asked.frame);
    read_request_header(&mut body).expect("it was answered");
    asked.frame.len() - body.len()
}

fn cut(asked: &Asked, random: &mut StdRng) -> Vec<Hostile> {
    let frame = &asked.frame;
    let cut = (0..frame.len())
        .map(|at| Hostile::whole("cut", frame[..at].to_vec(), random))
        .collect::<Vec<_>>();
    let unfinished = [1, frame.len() / 2, frame.len() - 1].map(|at| Hostile {
        what: "unfinished",
        frame: frame[..at].to_vec(),
        missing: frame.len() - at,
        ends: true,
    });
    cut.into_iter().chain(unfinished).collect()
}

fn broken(asked: &Asked, random: &mut StdRng, others: &[Vec<u8>]) -> Vec<Hostile> {
    let (valid, from) = (&asked.frame, body_at(asked));
    let mut all = Vec::new();
    let mut add = |what, frame: Vec<u8>, random: &mut StdRng| {
        all.push(Hostile::whole(what, frame, random));
    };
    for _ in 0..FLIPPED {
        let mut frame = valid.clone();
        let at = random.random_range(0..frame.len());
        frame[at] ^= 1 << random.random_range(0..8);
        add("flipped", frame, random);
    }
    // Every place of the body may be that of a length.
    for _ in 0..if from < valid.len() { BOMBS } else { 0 } {
        let mut frame = valid.clone();
        let at = random.random_range(from..frame.len());
        let length = LENGTHS[random.random_range(0..LENGTHS.len())];
        let end = (at + length.len()).min(frame.len());
        let replaced = if random.random_bool(0.3) { at } else { end };
        frame.splice(at..replaced, length.iter().copied());
        add("length bomb", frame, random);
    }
    for _ in 0..MUTATED {
        let mut frame = valid.clone();
        mutate(random, &mut frame, others);
        add("mutated", frame, random);
    }
    for most in [100, 1_000, 100_000].repeat(NOISE) {
        let noise: Vec<u8> = (0..random.random_range(1..most))
            .map(|_| random.random())
            .collect();
        add("noise", [&valid[..from], &noise[..]].concat(), random);
        if most < 100_000 {
            add("extended", [&valid[..], &noise[..]].concat(), random);
        }
    }
    all.retain(|hostile| !hostile.asks_for_too_much());
    all
}

/// Sends a frame and sees it answered or its connection closed.
fn throw(address: &str, hostile: &Hostile) -> u64 {
    let mut stream = wire::connect(address);
    let bytes = wire::with_size(&hostile.frame, hostile.frame.len() + hostile.missing);
    wire::send_raw(&mut stream, &bytes);
    if hostile.ends {
        wire::end(&stream);
    }
    let mut replies = 0;
    let mut patience = if hostile.may_be_silent() {
        WAIT
    } else {
        PATIENCE
    };
    let fail = |why: &str| panic!("{} frame {:02x?}: {why}", hostile.what, hostile.frame);
    loop {
        match wire::next(&mut stream, patience) {
            Next::Closed => return replies,
            Next::Reply(reply) => {
                replies += 1;
                if let Err(why) = replies::check(&hostile.frame, reply) {
                    fail(&why);
                }
                assert_eq!(replies, 1, "{} replies to one frame", hostile.what);
                wire::end(&stream);
                patience = PATIENCE;
            }
            Next::Silence if patience == WAIT => {
                wire::end(&stream);
                patience = PATIENCE;
            }
            Next::Silence => fail("neither answered nor closed"),
        }
    }
}

fn throw_all(address: &str, all: &[Hostile]) -> u64 {
    thread::scope(|scope| {
        let throwers: Vec<_> = all
            .chunks(all.len().div_ceil(THROWERS))
            .map(|some| {
                scope.spawn(move || some.iter().map(|one| throw(address, one)).sum::<u64>())
            })
            .collect();
        let joined = throwers.into_iter().map(|thrower| thrower.join());
        joined
            .map(|replies| replies.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .sum()
    })
}

/// Deletes the topics that hostile requests brought about.
fn tidy_up(asker: &mut Asker, kept: &[&str]) {
    let all = MetadataRequest::default().with_topics(None);
    let reply: MetadataResponse = asker.ask(ApiKey::Metadata, 5, &all);
    let names: Vec<TopicName> = reply
        .topics
        .into_iter()
        .filter_map(|topic| topic.name)
        .filter(|name| !kept.contains(&name.as_str()))
        .collect();
    let request = DeleteTopicsRequest::default()
        .with_topic_names(names)
        .with_timeout_ms(30_000);
    let _: DeleteTopicsResponse = asker.ask(ApiKey::DeleteTopics, 3, &request);
}

#[test]
fn every_api_in_every_version_answers_or_closes_whatever_it_is_sent() {
    let target = Target::start(&["group.initial.rebalance.delay.ms=0"]);
    let address = target.broker.address().to_owned();
    let mut corpus = ask_everything(&address).into_asked();
    // The same request asked several times is one.
    corpus.dedup_by_key(|asked| (asked.api, asked.version));
    let others: Vec<_> = corpus.iter().map(|asked| asked.frame.clone()).collect();
    let mut asker = Asker::connect(&address);
    let kept = ["bystander", "every-version", "__consumer_offsets"];
    let (mut thrown, mut replies) = (0, 0);
    cases("hostile frames", corpus.len() as u64, |case, random| {
        let asked = &corpus[case as usize % corpus.len()];
        let mut all = broken(asked, random, &others);
        if case < corpus.len() as u64 {
            all.extend(cut(asked, random));
        }
        thrown += all.len();
        replies += throw_all(&address, &all);
        if case.is_multiple_of(8) {
            tidy_up(&mut asker, &kept);
        }
    });
    drop(asker);
    eprintln!("{thrown} hostile frames, {replies} of them answered");
    target.finish(0).print("hostile frames");
}
