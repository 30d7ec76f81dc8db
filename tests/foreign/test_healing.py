"""Replicas that lost what they had, of three broker processes: a whole disk, or one log. They come back from the others, under
load, and everything that was acknowledged is read from them.

Tidelog's own: Kafka's brokers join in another way.
"""

import shutil

import pytest

from harness.cluster import IS_TIDELOG, Load, check_books, create, node, placement, running, tidelog, tidelog_json, until

pytestmark = pytest.mark.skipif(not IS_TIDELOG, reason="brokers join by Tidelog's own flag")

# What a broker says of a log that it cannot use, and others of one that has another data directory now.
DAMAGED = [r"log stopped", r"a log is damaged", r"partition is offline", r"it has lost records"]


def placed(brokers, topic):
    """(leader, replicas in sync) of each partition, as one of these brokers says."""
    found = [placement(brokers, topic, partition) for partition in range(3)]
    return [(partition.leader, sorted(partition.isr)) for partition in found]


def all_in_sync(brokers, topic):
    until(lambda: placed(brokers, topic), lambda found: all(leader > 0 and isr == [1, 2, 3] for leader, isr in found))
    until(lambda: tidelog(brokers, "partition", "reassignments"), lambda text: topic not in text)


def all_vote(brokers):
    """Waits until the controller group consists of what is there, and of nothing that is lost."""

    def group():
        found = tidelog_json(brokers, "cluster", "status")["controller_group"]
        # Of one that has just come nothing is known.
        return sorted(voter["broker"] for voter in found["voters"]), found["observers"], [voter["lag"] for voter in found["voters"]]

    until(group, lambda found: found == ([1, 2, 3], [], [0, 0, 0]))


def test_a_lost_disk_is_replaced_under_the_same_id(tmp_path):
    with running(tmp_path, 3) as brokers:
        create(brokers, "orders")
        load = Load(brokers, "orders")
        load.run(2)
        # Each in turn, that of the founder and controller among them: in the end nothing is left of the first disks.
        for lost in (2, 0, 1):
            victim, contact = brokers[lost], brokers[(lost + 1) % 3]
            with load.beside():
                victim.kill()
                shutil.rmtree(victim.data_dir)
                victim.settings["cluster.join"] = contact.peer_address
                victim.start()
                all_in_sync(brokers, "orders")
                all_vote(brokers)
                load.goes_on()
        check_books(brokers, "orders", load.finish())


def test_a_disk_that_was_replaced_is_refused(tmp_path):
    with running(tmp_path, 3) as brokers:
        brokers[2].kill()
        old = tmp_path / "old"
        shutil.move(brokers[2].data_dir, old)
        brokers[2].start()
        brokers[2].stop()
        returned = node(tmp_path / "returned", 3)
        shutil.copytree(old, returned.data_dir)
        with pytest.raises(RuntimeError, match="broker id 3 belongs to another data directory"):
            returned.start()
        returned.discard()
        brokers[2].start()


@pytest.mark.parametrize("led", [False, True], ids=["followed", "led"])
def test_a_damaged_log_is_brought_back(tmp_path, led):
    with running(tmp_path, 3, expected=DAMAGED) as brokers:
        damaged = brokers[1]
        create(brokers, "orders", assignment=[[2, 1, 3] if led else [1, 2, 3]] * 3)
        load = Load(brokers, "orders")
        load.run(3)
        damaged.stop()
        for log in damaged.data_dir.glob("topics/orders-*/*.log"):
            with log.open("r+b") as file:
                file.truncate(log.stat().st_size // 2)
        with load.beside():
            damaged.start()
            until(lambda: damaged.log().count("the damaged replica is replaced by an empty one"), lambda count: count == 3)
            all_in_sync(brokers, "orders")
            load.goes_on()
        # It holds everything again: it leads, and all is read from it.
        for partition in range(3):
            tidelog(brokers, "partition", "reassign", "orders", partition, "--replicas", "2,1,3", "--wait")
        tidelog(brokers, "partition", "elect", "orders")
        until(lambda: placed(brokers, "orders"), lambda found: all(leader == 2 for leader, _ in found))
        check_books(brokers, "orders", load.finish())
