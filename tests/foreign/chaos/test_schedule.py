"""Plans by themselves: no broker is needed."""

import re

import pytest

from chaos.faults import CATALOGUE
from chaos.schedule import BROKERS, DEFAULT_SEED, KINDS, WITHOUT_MAJORITY, plan, power_losses, told

SEEDS = range(200)


def test_the_same_seed_is_the_same_plan():
    assert plan("1", 900) == plan("1", 900)
    assert power_losses("1", 20) == power_losses("1", 20)
    assert len({told(0, plan(seed, 90)) for seed in SEEDS}) == len(SEEDS)


def test_a_longer_plan_begins_like_a_shorter_one():
    short = plan("7", 90)
    assert plan("7", 900)[: len(short)] == short


def test_this_seed_is_still_the_plan_that_it_was():
    """A seed that somebody noted replays what it did. A change of the kinds is a reason to change this."""
    assert str(plan("47", 90)[0]) == "1.8 s pause, long pause of 3 for 5.6 s"


def test_the_short_form_has_every_kind():
    assert {step.fault for step in plan(DEFAULT_SEED, 90)} == set(KINDS)


@pytest.mark.parametrize("seconds", [30, 90, 900])
def test_a_plan_lasts_as_long_as_it_was_told(seconds):
    for seed in SEEDS:
        length = sum(step.pause_s + step.lasts_s for step in plan(seed, seconds))
        assert seconds - 20 < length <= seconds


def test_a_minority_is_disturbed_at_a_time():
    for seed in SEEDS:
        for step in plan(seed, 300):
            kind = KINDS[step.fault]
            assert kind.shortest_s <= step.lasts_s <= kind.longest_s
            assert len(set(step.brokers)) == len(step.brokers) == kind.brokers and set(step.brokers) <= set(BROKERS)
            assert kind.at_a_time * 2 < len(BROKERS) or step.fault in WITHOUT_MAJORITY


def test_each_kind_comes_before_one_comes_again():
    for seed in SEEDS:
        names = [step.fault for step in plan(seed, 900)]
        for first in range(0, len(names) - len(KINDS), len(KINDS)):
            assert set(names[first : first + len(KINDS)]) == set(KINDS)


def test_all_brokers_lose_their_power_at_once():
    steps = power_losses("1", 5)
    assert [(step.fault, step.brokers) for step in steps] == [("all killed", BROKERS)] * 5


def test_a_plan_tells_all_of_itself():
    steps = plan("1", 90)
    lines = told("1", steps).splitlines()
    assert lines[0] == f"seed 1, {len(steps)} faults:"
    assert all(re.search(rf"{step.fault} of {step.brokers[0]}", line) for step, line in zip(steps, lines[1:], strict=True))


def test_whatever_is_planned_can_be_done():
    assert set(CATALOGUE) == set(KINDS)
