//! Repeats a step and says what one took.

use std::time::{Duration, Instant};

/// Rounds, of which the median is shown.
const ROUNDS: usize = 7;

/// Runs `round` several times, each of which makes `steps` steps over `bytes` bytes each, and prints a line.
pub fn show(name: &str, steps: u32, bytes: usize, mut round: impl FnMut()) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            round();
            begun.elapsed()
        })
        .collect();
    times.sort();
    let each = times[ROUNDS / 2].as_secs_f64() / f64::from(steps);
    let rate = bytes as f64 / each / f64::from(1 << 30);
    println!("{name:<48} {:>10.2} us {rate:>8.2} GiB/s", each * 1e6);
}
