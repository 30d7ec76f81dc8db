"""The means of the faults by themselves, without brokers: what vanishes, what is slow, what is full, and that nothing is left behind."""

import ctypes
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from chaos.faults import Cut, CutFromClients, Deaf, Mute, SlowLink
from chaos.nodes import CLIENTS, PREFIX, Disk, Network, attempt, remove_leftovers, run, unable
from chaos.schedule import BROKERS

EVERYBODY = (CLIENTS, *BROKERS)
CLONE_NEWNET = 0x40000000
PORT = 9000


def in_namespace(network, number, make):
    """What `make()` returns, called by a thread that has gone into the broker's namespace: a socket stays where it was made."""
    if number == CLIENTS:
        return make()
    made = []

    def work():
        with open(f"/run/netns/{network.namespace(number)}") as namespace:
            assert ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET) == 0
        made.append(make())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    return made[0]


@pytest.fixture
def network():
    if reason := unable():
        pytest.skip(reason)
    remove_leftovers()
    network = Network(BROKERS)
    try:
        network.make()
        yield network
    finally:
        network.remove()


@pytest.fixture
def sockets(network):
    """A datagram socket of each, and of the clients."""

    def bound(number):
        made = in_namespace(network, number, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.bind((network.addresses[number], PORT))
        return made

    made = {number: bound(number) for number in EVERYBODY}
    yield made
    for one in made.values():
        one.close()


def silent(network, sockets):
    """The ways on which nothing arrives."""
    for sender, one in sockets.items():
        for receiver in sockets.keys() - {sender}:
            one.sendto(b"%d" % sender, (network.addresses[receiver], PORT))
    time.sleep(0.2)
    ways = {(a, b) for a in sockets for b in sockets if a != b}
    for receiver, one in sockets.items():
        one.setblocking(False)
        while True:
            try:
                ways.discard((int(one.recv(100)), receiver))
            except BlockingIOError:
                break
    return ways


def cluster_of(network):
    return SimpleNamespace(nodes=dict.fromkeys(BROKERS), network=network, expected={number: [] for number in BROKERS})


@pytest.mark.parametrize("kind, ways", [
    (Cut, {(2, 1), (2, 3), (1, 2), (3, 2)}),
    (Deaf, {(1, 2), (3, 2)}),
    (Mute, {(2, 1), (2, 3)}),
    (CutFromClients, {(CLIENTS, 2), (2, CLIENTS)}),
])  # fmt: skip
def test_what_vanishes(network, sockets, kind, ways):
    assert silent(network, sockets) == set()
    fault = kind(cluster_of(network), (2,))
    fault.begin()
    assert silent(network, sockets) == ways
    fault.end()
    assert silent(network, sockets) == set()


def seconds_for(network, sender, receiver, size):
    """How long that many bytes are on their way."""
    listener = in_namespace(network, receiver, lambda: socket.create_server((network.addresses[receiver], PORT)))
    with listener, in_namespace(network, sender, socket.socket) as one:
        one.connect((network.addresses[receiver], PORT))
        other, _ = listener.accept()
        begun = time.monotonic()
        threading.Thread(target=one.sendall, args=(bytes(size),), daemon=True).start()
        with other:
            other.settimeout(20)
            while size > 0:
                size -= len(other.recv(1 << 16))
        return time.monotonic() - begun


def test_a_slow_link_is_slow_both_ways(network):
    fault = SlowLink(cluster_of(network), (3,))
    fault.begin()
    assert all(seconds_for(network, *way, 100_000) > 0.4 for way in ((1, 3), (3, 1), (CLIENTS, 3)))
    assert seconds_for(network, 1, 2, 100_000) < 0.4
    fault.end()
    assert seconds_for(network, 1, 3, 100_000) < 0.4


def test_a_disk_that_is_filled_has_room_for_nothing_until_it_is_freed(tmp_path):
    if reason := unable():
        pytest.skip(reason)
    disk = Disk(tmp_path / "disk", 8)
    disk.make()
    try:
        disk.fill()
        with pytest.raises(OSError, match="No space"):
            (disk.mount / "more").write_bytes(b"x")
        disk.free()
        (disk.mount / "more").write_bytes(bytes(1 << 20))
    finally:
        disk.remove()
    assert not os.path.ismount(disk.mount)


def test_nothing_of_a_network_is_left(network):
    remove_leftovers()
    assert Path("/run/netns", network.hub).exists(), "it is in use"
    network.remove()
    assert [name for name in os.listdir("/run/netns") if name.startswith(network.stem)] == []
    assert network.link not in run("ip", "link", "show")
    # Again, as after a failure in the middle.
    network.remove()


def test_what_a_dead_run_left_is_removed(tmp_path):
    if reason := unable():
        pytest.skip(reason)
    ended = subprocess.Popen(["true"])
    ended.wait()
    namespace, mount = f"{PREFIX}-{ended.pid}-hub", tmp_path / "disk"
    mount.mkdir()
    try:
        run("ip", "netns", "add", namespace)
        run("mount", "-t", "tmpfs", "-o", "size=1m", f"{PREFIX}-{ended.pid}", mount)
        remove_leftovers()
        assert not Path("/run/netns", namespace).exists()
        assert not os.path.ismount(mount)
    finally:
        attempt("ip", "netns", "del", namespace)
        attempt("umount", "--lazy", mount)
