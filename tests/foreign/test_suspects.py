"""Records that are acknowledged with durability=os, and brokers that lose the power: each keeps what it has not synced in its own
memory, so that kill -9 is a power loss. A replica that lost its newest records helps nobody to lead who lacks them.

Tidelog's own: only the fault build forgets.
"""

import time

import pytest
from harness.cluster import (
    IS_TIDELOG, Load, check_books, create, paused, placement, read_all, running, tidelog, until,
)  # fmt: skip

pytestmark = pytest.mark.skipif(not IS_TIDELOG, reason="the fault build is Tidelog's")

OS = {"durability": "os"}
FORGETFUL = {"TIDELOG_TEST_VOLATILE_STORAGE": "7"}
EXPECTED = [r"test mode: everything that was not synced is lost", r"the power may have taken records", r"an operator trusts the replica"]
# Longer than every election that could be asked for in vain.
NOBODY_LEADS_S = 6


def forgetful(folder):
    return running(folder, 3, expected=EXPECTED, environment=FORGETFUL, broker_session_timeout_ms=2_000)


def test_the_one_that_kept_the_records_leads_again(tmp_path):
    with forgetful(tmp_path) as brokers:
        leads, lost, slept = brokers
        create(brokers, "orders", assignment=[[1, 2, 3]], config=OS)
        load = Load(brokers, "orders", partitions=[0])
        load.run(1)
        with paused(slept):
            until(lambda: sorted(placement([leads], "orders").isr), lambda isr: isr == [1, 2])
            # Acknowledged by two of them, one of which loses it.
            load.run(2)
            assert load.producer.flush(30) == 0
            acknowledged = len(load.acknowledged[0])
            lost.kill()
        with paused(leads):
            lost.start()
            until(lambda: placement([slept, lost], "orders").leader, lambda leader: leader != 1)
            end = time.monotonic() + NOBODY_LEADS_S
            while time.monotonic() < end:
                assert placement([slept, lost], "orders").leader == -1
                time.sleep(0.2)
        until(lambda: placement(brokers, "orders").leader, lambda leader: leader > 0)
        until(lambda: sorted(placement(brokers, "orders").isr), lambda isr: isr == [1, 2, 3])
        load.run(1)
        kept = load.finish()
        assert len(kept[0]) > acknowledged > 0
        check_books(brokers, "orders", kept)


def test_where_all_lost_the_power_an_operator_decides(tmp_path):
    with forgetful(tmp_path) as brokers:
        create(brokers, "orders", assignment=[[1, 2, 3]], config=OS)
        create(brokers, "synced", assignment=[[1, 2, 3]])
        load = Load(brokers, "synced", partitions=[0])
        load.run(1)
        for broker in brokers:
            broker.kill()
        for broker in brokers:
            broker.spawn()
        for broker in brokers:
            until(broker._ready, bool)
        load.run(1)
        check_books(brokers, "synced", load.finish())
        assert placement(brokers, "orders").leader == -1
        assert "elected" in tidelog(brokers, "partition", "elect", "orders", "--unclean")
        until(lambda: placement(brokers, "orders").leader, lambda leader: leader > 0)
        again = Load(brokers, "orders", partitions=[0])
        again.run(1)
        again.finish()
        assert read_all(brokers, "orders", {0: 1})[0]
