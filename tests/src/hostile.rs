//! Bytes that were valid once, and cases that can be told again.
//!
//! A case is a number: together with the seed it decides everything random in it. Seed and case of a failure are
//! printed, and `TIDELOG_TEST_SEED=S TIDELOG_TEST_CASE=N` runs that one again. `TIDELOG_SOAK` multiplies the cases.

use std::env;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::allocations::measure;

/// What the cases are drawn from unless `TIDELOG_TEST_SEED` says otherwise: a test that passed passes again.
const SEED: u64 = 20_261_127;

/// Numbers that break code more often than others do: ends of types, off by one, and what bounds are made of.
const INTERESTING: [i64; 24] = [
    0,
    1,
    -1,
    -2,
    7,
    8,
    61,
    127,
    128,
    -128,
    255,
    256,
    32_767,
    32_768,
    -32_768,
    65_535,
    65_536,
    1 << 20,
    i32::MAX as i64,
    i32::MIN as i64,
    u32::MAX as i64,
    1 << 32,
    i64::MAX,
    i64::MIN,
];

/// Varints that claim much, claim nothing, or never end.
const VARINTS: [&[u8]; 8] = [
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0xfe, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
    &[0x80, 0x80, 0x40],
    &[0x00],
    &[0x01],
];

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let parsed = text.parse();
    Some(parsed.unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// `cases`, times `TIDELOG_SOAK` where that is set.
pub fn soak(cases: u64) -> u64 {
    cases * number("TIDELOG_SOAK").unwrap_or(1)
}

/// Says which case it was if the thread panics while this lives.
struct Witness {
    name: &'static str,
    seed: u64,
    case: u64,
}

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Witness { name, seed, case } = self;
            eprintln!(
                "{name}: failed in case {case} of seed {seed}; again: TIDELOG_TEST_SEED={seed} TIDELOG_TEST_CASE={case}"
            );
        }
    }
}

/// Seed of all cases of this run.
pub fn seed() -> u64 {
    number("TIDELOG_TEST_SEED").unwrap_or(SEED)
}

/// What is random in a case.
pub fn random_of(seed: u64, case: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ case.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Runs cases 0 to `cases` (multiplied by `TIDELOG_SOAK`), or the one that `TIDELOG_TEST_CASE` names.
pub fn cases(name: &'static str, cases: u64, mut test: impl FnMut(u64, &mut StdRng)) {
    let seed = seed();
    let all = match number("TIDELOG_TEST_CASE") {
        Some(case) => case..case + 1,
        None => 0..soak(cases),
    };
    eprintln!("{name}: cases {all:?} of seed {seed}");
    for case in all {
        let witness = Witness { name, seed, case };
        test(case, &mut random_of(seed, case));
        drop(witness);
    }
}

/// Changes valid bytes in one to four ways. `others` are valid bytes too, to cross with.
pub fn mutate(random: &mut StdRng, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    for _ in 0..random.random_range(1..5) {
        change(random, bytes, others);
        if random.random_bool(0.6) {
            return;
        }
    }
}

fn change(random: &mut StdRng, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    if bytes.is_empty() {
        return bytes.extend((0..random.random_range(1..40)).map(|_| random.random::<u8>()));
    }
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..14) {
        0 | 1 => bytes[at] ^= 1 << random.random_range(0..8),
        2 => bytes[at] = random.random(),
        3..=6 => put_number(random, bytes, at),
        7 => put_over(bytes, at, VARINTS[random.random_range(0..VARINTS.len())]),
        8 => {
            let varint = VARINTS[random.random_range(0..VARINTS.len())];
            bytes.splice(at..at, varint.iter().copied());
        }
        9 => bytes.truncate(at),
        10 => drop(bytes.drain(range_from(random, bytes.len(), at))),
        11 => {
            let part = bytes[range_from(random, bytes.len(), at)].to_vec();
            let to = random.random_range(0..=bytes.len());
            bytes.splice(to..to, part);
        }
        12 => {
            let range = range_from(random, bytes.len(), at);
            let fill = if random.random_bool(0.5) { 0 } else { 0xff };
            bytes[range].fill(fill);
        }
        _ => cross(random, bytes, at, others),
    }
}

/// Puts an interesting number of any width over what is there, often one near the bytes that are left.
fn put_number(random: &mut StdRng, bytes: &mut [u8], at: usize) {
    let left = (bytes.len() - at) as i64;
    let number = match random.random_range(0..4) {
        0 => left + random.random_range(-9..10),
        1 => random.random(),
        _ => INTERESTING[random.random_range(0..INTERESTING.len())],
    };
    let wide = number.to_be_bytes();
    let width = [1, 2, 4, 4, 8][random.random_range(0..5)];
    let mut field = wide[8 - width..].to_vec();
    if random.random_bool(0.3) {
        field.reverse();
    }
    put_over(bytes, at, &field);
}

fn put_over(bytes: &mut [u8], at: usize, field: &[u8]) {
    let len = field.len().min(bytes.len() - at);
    bytes[at..at + len].copy_from_slice(&field[..len]);
}

fn range_from(random: &mut StdRng, len: usize, at: usize) -> Range<usize> {
    let most = (len - at).min(64);
    at..at + random.random_range(1..=most)
}

/// Goes on with the end of another one, or with random bytes.
fn cross(random: &mut StdRng, bytes: &mut Vec<u8>, at: usize, others: &[Vec<u8>]) {
    let keep = if random.random_bool(0.5) {
        at
    } else {
        bytes.len()
    };
    bytes.truncate(keep);
    match others.len() {
        0 => bytes.extend((0..random.random_range(1..40)).map(|_| random.random::<u8>())),
        count => {
            let other = &others[random.random_range(0..count)];
            let from = random.random_range(0..=other.len());
            bytes.extend_from_slice(&other[from..]);
        }
    }
}

/// What decoding may hold for each byte that it is given.
const HELD_PER_BYTE: usize = 64;

/// What it may hold whatever it is given.
const HELD_MIN: usize = 16 * 1024;

/// A pair of functions under test.
pub struct Codec<D, E, S> {
    /// Named in what a failure prints.
    pub name: &'static str,
    /// Reads bytes; `None` if they are not valid.
    pub decode: D,
    /// Writes what `decode` read.
    pub encode: E,
    /// Makes checksums and lengths right again, so that what stands behind them is reached.
    pub reseal: S,
}

impl<D, E, S> Codec<D, E, S> {
    /// Decodes mutants of `corpus`, all of it valid: nothing panics or holds memory that the bytes do not pay for, and
    /// what is decoded is the same after it was encoded and decoded again.
    pub fn check<T>(&self, cases_min: u64, corpus: &[Vec<u8>])
    where
        T: PartialEq + std::fmt::Debug,
        D: Fn(&[u8]) -> Option<T>,
        E: Fn(&T) -> Vec<u8>,
        S: Fn(&mut Vec<u8>),
    {
        for valid in corpus {
            let read = (self.decode)(valid);
            assert!(read.is_some(), "{}: {valid:?} is not valid", self.name);
        }
        let mut decoded = 0;
        cases(self.name, cases_min, |_, random| {
            for valid in corpus {
                let mut mutant = valid.clone();
                mutate(random, &mut mutant, corpus);
                if random.random_bool(0.8) {
                    (self.reseal)(&mut mutant);
                }
                decoded += u64::from(self.read(&mutant));
            }
        });
        assert!(decoded > 0, "{}: no mutant got through", self.name);
    }

    fn read<T>(&self, mutant: &[u8]) -> bool
    where
        T: PartialEq + std::fmt::Debug,
        D: Fn(&[u8]) -> Option<T>,
        E: Fn(&T) -> Vec<u8>,
    {
        let (read, held) = measure(|| (self.decode)(mutant));
        let most = HELD_MIN + HELD_PER_BYTE * mutant.len();
        assert!(held <= most, "{}: {held} bytes for {mutant:?}", self.name);
        let Some(value) = read else { return false };
        let again = (self.decode)(&(self.encode)(&value));
        assert_eq!(again.as_ref(), Some(&value), "{}: {mutant:?}", self.name);
        true
    }
}
