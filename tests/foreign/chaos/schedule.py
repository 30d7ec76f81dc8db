"""The plan of a run: which fault befalls which brokers, for how long, with which pauses between.

Pure: a seed and a length make one plan, always the same. What the faults do is in faults.py, which has the same names.
"""

import random
from dataclasses import dataclass

BROKERS = (1, 2, 3)


@dataclass(frozen=True)
class Kind:
    """A fault as far as a plan knows it: `brokers` that it befalls, of them `at_a_time` disturbed together; it lasts from
    `shortest_s` to `longest_s`."""

    shortest_s: float
    longest_s: float
    brokers: int = 1
    at_a_time: int = 1


# A broker's session is 3 s, a group member's 10 s: most faults last shorter at one time, longer at another.
KINDS = {
    "kill": Kind(0.5, 8),
    "short pause": Kind(0.3, 2.5),
    "long pause": Kind(4, 12),
    "cut": Kind(1, 12),
    "deaf": Kind(1, 12),
    "mute": Kind(1, 12),
    "cut from clients": Kind(1, 12),
    "slow link": Kind(4, 12),
    "full disk": Kind(3, 10),
    "stop": Kind(0.5, 5),
    # Its restarts are within this time.
    "rolling": Kind(8, 12, brokers=3),
    "majority killed": Kind(1, 8, brokers=2, at_a_time=2),
    "all killed": Kind(0.2, 4, brokers=3, at_a_time=3),
}
# These leave no majority, on purpose.
WITHOUT_MAJORITY = ("majority killed", "all killed")
# The plan of this seed has every kind of fault within 90 s.
DEFAULT_SEED = "47"


@dataclass(frozen=True)
class Step:
    """After `pause_s` a fault begins, and ends when it has lasted `lasts_s`. Where it `settles`, the next one waits until all
    partitions take records again; otherwise it meets a cluster that is still busy with this one."""

    pause_s: float
    fault: str
    brokers: tuple
    lasts_s: float
    settles: bool

    def __str__(self):
        brokers = ", ".join(map(str, self.brokers))
        after = "" if self.settles else ", and at once the next"
        return f"{self.pause_s:.1f} s pause, {self.fault} of {brokers} for {self.lasts_s:.1f} s{after}"


def _step(choice, name):
    kind = KINDS[name]
    brokers = tuple(choice.sample(BROKERS, kind.brokers))
    lasts_s = round(choice.uniform(kind.shortest_s, kind.longest_s), 1)
    return Step(round(choice.uniform(0.5, 4), 1), name, brokers, lasts_s, choice.random() < 0.7)


def plan(seed, seconds):
    """Faults for that long. Each kind comes once before one comes again."""
    choice, steps, hand = random.Random(f"chaos {seed}"), [], []
    while True:
        hand = hand or choice.sample(sorted(KINDS), len(KINDS))
        step = _step(choice, hand.pop())
        seconds -= step.pause_s + step.lasts_s
        if seconds < 0:
            return steps
        steps.append(step)


def power_losses(seed, rounds):
    """All brokers killed at once, that often, with some seconds of work between."""
    choice = random.Random(f"power losses {seed}")
    return [
        Step(round(choice.uniform(1, 4), 1), "all killed", BROKERS, round(choice.uniform(0, 1), 1), choice.random() < 0.7)
        for _ in range(rounds)
    ]


def told(seed, steps):
    """The plan for a person."""
    return "\n".join([f"seed {seed}, {len(steps)} faults:", *(f"{number:4}. {step}" for number, step in enumerate(steps, 1))])
