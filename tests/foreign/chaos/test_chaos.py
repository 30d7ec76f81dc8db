"""Three broker processes under load, and one fault after the other by a plan that a seed makes: kill -9, processes that stand still,
networks that are cut in one way or both or are slow, full disks, stops, and everything at once. Then all is healed, and the books must
balance: nothing that was acknowledged is lost, doubled or out of order on any replica, and no group's committed offset ever went back.

TIDELOG_TEST_SEED chooses the plan, TIDELOG_TEST_CHAOS_SECONDS its length (`make chaos`: 900). A failure tells both, the plan, what was
done when, and how to do it again. What is certain is the plan; how the brokers' processes get on beside it is not.

Tidelog's own: brokers join by its flag.
"""

import datetime
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos import schedule
from chaos.conclusion import conclude
from chaos.faults import CATALOGUE
from chaos.load import PARTITIONS, TOPIC, World
from chaos.nodes import forgetful, in_namespaces, unable
from chaos.view import asked, epoch_ends, placements
from harness.cluster import IS_TIDELOG

pytestmark = pytest.mark.skipif(not IS_TIDELOG, reason="brokers join by Tidelog's own flag")

SEED = os.environ.get("TIDELOG_TEST_SEED", schedule.DEFAULT_SEED)
SECONDS = int(os.environ.get("TIDELOG_TEST_CHAOS_SECONDS", "90"))
POWER_LOSSES = max(3, SECONDS // 60)
# What a broker's disk holds at the end, ballast and journal among it, and as much again.
DISK_MIB = 224 + SECONDS // 3


class Run:
    """A plan that is carried out, and what happened when, for who has to find out why."""

    def __init__(self, test, steps, folder):
        self.test, self.steps, self.folder, self.events, self.cluster = test, steps, folder, [], None
        self.say(schedule.told(SEED, steps))

    def say(self, text):
        """With the clock of the brokers' logs."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%H:%M:%S.%f")[:-3]
        self.events.append(f"{now} {text}")
        print(self.events[-1], flush=True)

    def carry_out(self, world):
        for number, step in enumerate(self.steps, 1):
            world.hold(step.pause_s)
            fault = CATALOGUE[step.fault](self.cluster, step.brokers)
            self.say(f"{number}. {fault}")
            begun = time.monotonic()
            fault.begin()
            world.hold(max(0, step.lasts_s - (time.monotonic() - begun)))
            fault.end()
            self.say(f"{number}. ended")
            if step.settles:
                self.say(f"{number}. all partitions took records again after {world.goes_on():.1f} s")
        self.say(f"the last one: all partitions took records again after {world.goes_on():.1f} s")

    @contextmanager
    def told(self):
        """A failure says all that is needed to find out why, and to try again."""
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n\n{self._circumstances()}") from error

    def _circumstances(self):
        again = f"TIDELOG_TEST_SEED={SEED} TIDELOG_TEST_CHAOS_SECONDS={SECONDS} make test-foreign ARGS='-k {self.test}'"
        logs = sorted(self.folder.glob("broker*/broker.log"))
        if kept := os.environ.get("TIDELOG_TEST_LOGS"):
            logs = [Path(shutil.copy(log, Path(kept) / f"{self.test}-{log.parent.name}.log")) for log in logs]
        complaints = self.cluster.complaints() if self.cluster else {}
        said = [f"broker {number} said: {line}" for number, lines in complaints.items() for line in lines[:20]]
        if self.cluster:
            for number, broker in self.cluster.nodes.items():
                said.append(f"broker {number} leads: {asked(broker.address, placements, TOPIC)}")
                said.append(f"broker {number} knows ends of epochs: {asked(broker.address, epoch_ends, TOPIC, PARTITIONS)}")
        # The first event is the plan.
        return "\n".join([*self.events, *said, f"again: {again}", *(f"log: {log}" for log in logs)])


@pytest.mark.timeout(SECONDS * 3 + 600)
def test_chaos_loses_and_doubles_nothing(tmp_path):
    if "TIDELOG_TEST_CHAOS_SECONDS" not in os.environ:
        pytest.skip("a long form, `make chaos`")
    if reason := unable():
        pytest.skip(reason)
    run = Run("test_chaos_loses_and_doubles", schedule.plan(SEED, SECONDS), tmp_path)
    with run.told(), in_namespaces(tmp_path, DISK_MIB) as run.cluster, World(run.cluster, SEED, java=True) as world:
        run.say(f"{run.cluster.address} are a cluster")
        world.goes_on()
        run.carry_out(world)
        conclude(run.cluster, world, run.say)


@pytest.mark.timeout(POWER_LOSSES * 45 + 420)
def test_chaos_takes_nothing_when_all_brokers_lose_power_at_once(tmp_path):
    run = Run("test_chaos_takes_nothing", schedule.power_losses(SEED, POWER_LOSSES), tmp_path)
    with run.told(), forgetful(tmp_path) as run.cluster, World(run.cluster, SEED, java=False) as world:
        world.goes_on()
        run.carry_out(world)
        conclude(run.cluster, world, run.say)
