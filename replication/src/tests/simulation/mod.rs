//! Whole clusters, simulated by seed: the decisions of the real one, everything around them modelled.
//!
//! What decides is the real code: `controller::liveness`, `controller::voters`, `partition::reassignment`, `MetadataState`,
//! who founds a group, whose turn it is to ask for a leadership, what a leader reports. The consensus groups (`raft`), the
//! network, the clock, the brokers' processes and what their tasks do with the decisions are models. A seed decides
//! everything; what must be true is in `checks`.
//!
//! `make simulation SEED=N` runs one seed and shows what happened.

mod checks;
mod faults;
mod hosting;
mod ledger;
mod moving;
mod network;
mod operator;
mod planted_bugs;
mod process;
mod raft;
mod submitting;
mod tending;
mod trace;
mod world;

use operator::Slip;
use raft::Ms;
use world::World;

/// Schedules of a run.
const SCHEDULES: u64 = 1_000;
/// What the seeds begin with: a run that passed passes again.
const FIRST_SEED: u64 = 1;
/// Seeds that have failed, among those that only longer runs come to.
const FAILED_ONCE: [u64; 2] = [1_699, 5_799];
/// Schedules within which a mistake shows.
const MISTAKE_SCHEDULES: u64 = 4_000;
const EVENTS_MIN: u64 = 200;
const FAULTS_MIN: usize = 3;
/// Longest time until everything is well again once nothing disturbs.
const SETTLED_WITHIN: Ms = 60_000;

/// How a schedule went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Course {
    hash: u64,
    events: u64,
    faults: usize,
    /// Until everything was well again.
    settled_after: Ms,
}

/// Runs a schedule; `Err`: what is wrong, and what happened.
fn run(seed: u64, with_lines: bool) -> Result<Course, (String, String)> {
    run_to_end(seed, World::new(seed, with_lines))
}

fn run_to_end(seed: u64, mut world: World) -> Result<Course, (String, String)> {
    let mut look_at = 0;
    loop {
        let more = world.step();
        if let Some(failure) = world.checks.failure() {
            return Err((failure.clone(), world.trace.lines()));
        }
        let Some(calm) = world.calm_since.filter(|_| world.now >= look_at) else {
            assert!(more, "seed {seed}: nothing happens any more");
            continue;
        };
        look_at = world.now + 100;
        match world.unsettled() {
            None if world.operator.leaving.is_empty() => {
                world.check_books();
                if let Some(failure) = world.checks.failure() {
                    return Err((failure.clone(), world.trace.lines()));
                }
                return Ok(Course {
                    hash: world.trace.hash(),
                    events: world.trace.events(),
                    faults: world.faults,
                    settled_after: world.now - calm,
                });
            }
            why if world.now > calm + SETTLED_WITHIN => {
                let why = why.unwrap_or_else(|| format!("{:?}", world.operator.leaving));
                return Err((format!("not well again: {why}"), world.trace.lines()));
            }
            _ => {}
        }
    }
}

/// The seed that the environment names, to be run alone.
fn named_seed() -> Option<u64> {
    let seed = std::env::var("TIDELOG_TEST_SEED").ok()?;
    Some(seed.parse().expect("TIDELOG_TEST_SEED is a number"))
}

fn seeds() -> Vec<u64> {
    if let Some(seed) = named_seed() {
        return vec![seed];
    }
    let factor =
        std::env::var("TIDELOG_SOAK").map_or(1, |it| it.parse().expect("TIDELOG_SOAK is a number"));
    let run = FIRST_SEED..FIRST_SEED + SCHEDULES * factor;
    let others = FAILED_ONCE.into_iter().filter(|it| !run.contains(it));
    run.clone().chain(others).collect()
}

/// Shows all of a schedule that failed, and how to see it again.
fn show_failure(seed: u64, why: &str) -> ! {
    let lines = run(seed, true).map_or_else(|(_, lines)| lines, |course| format!("{course:?}\n"));
    panic!("{lines}seed {seed}: {why}\nagain: make simulation SEED={seed}");
}

#[test]
fn clusters_keep_their_promises_whatever_happens() {
    let (mut events, mut faults, mut slowest) = (0, 0, (0, 0));
    let (seeds, mut failed) = (seeds(), Vec::new());
    for seed in seeds.iter().copied() {
        match run(seed, false) {
            Ok(course) => {
                assert!(course.events >= EVENTS_MIN, "seed {seed}: {course:?}");
                assert!(course.faults >= FAULTS_MIN, "seed {seed}: {course:?}");
                events += course.events;
                faults += course.faults;
                slowest = slowest.max((course.settled_after, seed));
            }
            Err((why, _)) => failed.push((seed, why)),
        }
    }
    if let Some((seed, why)) = failed.first() {
        println!("{} seeds failed:", failed.len());
        failed
            .iter()
            .for_each(|(seed, why)| println!("  {seed}: {why}"));
        show_failure(*seed, why);
    }
    println!(
        "{} schedules: {events} events, {faults} faults; well again after at most {slowest:?} ms",
        seeds.len()
    );
}

/// A broker that leaves a partition and comes back is the one that it was to those who slept meanwhile, and one whose image
/// is late may be wanted again.
#[test]
fn mistakes_of_those_who_leave_are_found() {
    for slip in [Slip::Forgets, Slip::Hastens] {
        let found = (FIRST_SEED..FIRST_SEED + MISTAKE_SCHEDULES).find_map(|seed| {
            let mut world = World::new(seed, false);
            world.operator.slip = Some(slip);
            run_to_end(seed, world).err().map(|(why, _)| (seed, why))
        });
        let (seed, why) = found.unwrap_or_else(|| panic!("{slip:?} is not found"));
        println!("{slip:?}: seed {seed}: {why}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in seeds().into_iter().take(20) {
        assert_eq!(run(seed, false).ok(), run(seed, true).ok(), "seed {seed}");
    }
}
