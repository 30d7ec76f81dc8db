//! Bytes at a rate: a token bucket in which whoever comes gets a place.
//!
//! Pure. A place is due once all bytes that were reserved before it are through, so that what is larger than a second's worth
//! goes in its turn like anything else. Nothing is saved up while nobody wants anything. Places outlive a change of the
//! rate: from then on, what is before them goes through at the new one.

use std::time::Duration;

use tokio::time::Instant;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct Flow {
    /// Bytes per second; `None`: without limit.
    rate: Option<u64>,
    /// All that were ever reserved.
    reserved: u64,
    /// So many of them were through ...
    through: u64,
    /// ... by then.
    at: Instant,
}

/// A place: the bytes that are before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(pub u64);

impl Flow {
    /// One without limit.
    pub fn new(now: Instant) -> Flow {
        Flow {
            rate: None,
            reserved: 0,
            through: 0,
            at: now,
        }
    }

    /// Another rate from now on. Zero would be for ever: it counts as one byte per second.
    pub fn set_rate(&mut self, rate: Option<u64>, now: Instant) {
        (self.through, self.at) = (self.through(now), now);
        self.rate = rate.map(|rate| rate.max(1));
    }

    /// Takes a place for so many bytes.
    pub fn reserve(&mut self, bytes: u64, now: Instant) -> Place {
        if self.through(now) == self.reserved {
            (self.through, self.at) = (self.reserved, now);
        }
        let place = Place(self.reserved);
        self.reserved = self.reserved.saturating_add(bytes);
        place
    }

    /// How long until a place is due; zero: it is. One of another run of the process counts as the last that was taken.
    pub fn wait(&self, place: Place, now: Instant) -> Duration {
        let before = place.0.min(self.reserved);
        let left = u128::from(before.saturating_sub(self.through(now)));
        let rate = u128::from(self.rate.unwrap_or(u64::MAX));
        let nanos = (left * NANOS_PER_SECOND).div_ceil(rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn through(&self, now: Instant) -> u64 {
        let Some(rate) = self.rate else {
            return self.reserved;
        };
        let nanos = now.saturating_duration_since(self.at).as_nanos();
        let more = nanos.saturating_mul(u128::from(rate)) / NANOS_PER_SECOND;
        let through = u128::from(self.through).saturating_add(more);
        u64::try_from(through).map_or(self.reserved, |through| through.min(self.reserved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(rate: u64) -> (Flow, Instant) {
        let now = Instant::now();
        let mut flow = Flow::new(now);
        flow.set_rate(Some(rate), now);
        (flow, now)
    }

    #[test]
    fn bytes_go_through_at_the_rate_in_the_order_of_their_places() {
        let (mut flow, now) = at(1_000);
        let places: Vec<Place> = (0..4).map(|_| flow.reserve(500, now)).collect();
        for (number, place) in (0..4).zip(&places) {
            assert_eq!(flow.wait(*place, now), ms(500 * number));
            let due = now + ms(500 * number);
            assert_eq!(flow.wait(*place, due), Duration::ZERO);
        }
        assert_eq!(flow.wait(places[3], now + ms(1_499)), ms(1));
    }

    #[test]
    fn one_after_the_other_keeps_to_the_rate_however_late_each_comes() {
        let (mut flow, began) = at(1_000_000);
        let (mut now, mut sent) = (began, 0);
        while sent < 40_000_000 {
            let place = flow.reserve(1 << 20, now);
            now += flow.wait(place, now) + ms(3);
            sent += 1 << 20;
        }
        // All but the last have been paid for, and being late costs nothing while there is something to send.
        let paid = Duration::from_micros(sent - (1 << 20));
        assert!(now - began >= paid && now - began < paid + ms(10));
    }

    #[test]
    fn nothing_is_saved_up_while_nobody_comes() {
        let (mut flow, now) = at(1_000);
        let later = now + Duration::from_secs(3_600);
        assert_eq!(flow.reserve(1_000, later), Place(0));
        let next = flow.reserve(1, later);
        assert_eq!(flow.wait(next, later), ms(1_000));
    }

    #[test]
    fn what_is_larger_than_any_second_goes_at_once_and_is_paid_for_by_the_next() {
        let (mut flow, now) = at(10);
        let large = flow.reserve(1_000_000, now);
        assert_eq!(flow.wait(large, now), Duration::ZERO);
        let next = flow.reserve(1, now);
        assert_eq!(flow.wait(next, now), Duration::from_secs(100_000));
    }

    #[test]
    fn another_rate_counts_for_places_that_were_taken() {
        let (mut flow, now) = at(1_000);
        flow.reserve(10_000, now);
        let place = flow.reserve(1, now);
        let now = now + ms(2_000);
        assert_eq!(flow.wait(place, now), ms(8_000));
        flow.set_rate(Some(4_000), now);
        assert_eq!(flow.wait(place, now), ms(2_000));
        flow.set_rate(Some(0), now);
        assert_eq!(flow.wait(place, now), Duration::from_secs(8_000));
        flow.set_rate(None, now);
        assert_eq!(flow.wait(place, now), Duration::ZERO);
        // What went through without limit is owed by nobody.
        flow.reserve(u64::MAX / 2, now);
        flow.set_rate(Some(1), now);
        let place = flow.reserve(1, now);
        assert_eq!(flow.wait(place, now), Duration::ZERO);
    }

    #[test]
    fn slow_rates_lose_nothing_to_rounding() {
        let (mut flow, began) = at(3);
        flow.reserve(3, began);
        let mut now = began;
        for _ in 0..1_000 {
            now += ms(1);
            flow.reserve(0, now);
        }
        let place = flow.reserve(1, now);
        assert_eq!(flow.wait(place, now), Duration::ZERO);
    }

    #[test]
    fn a_place_of_another_run_is_the_last_one() {
        let (mut flow, now) = at(1_000);
        flow.reserve(500, now);
        assert_eq!(flow.wait(Place(u64::MAX), now), ms(500));
    }
}
