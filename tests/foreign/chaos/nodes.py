"""Three brokers, each in a network namespace of its own, and clients outside of them.

The namespaces hang on a bridge in one more namespace, the hub, so that what is dropped or slowed down there vanishes between the
brokers, as on a wire, and nothing of this machine's own network is touched. The clients are in the test's own process, which has
one address on the bridge. Everything is named after this process; what dead ones left behind is removed.
"""

import ipaddress
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chaos.schedule import BROKERS
from chaos.view import OFFSETS_TOPIC, asked, find_coordinator, placements, voters
from harness.broker import START_TIMEOUT_S, TidelogBroker
from harness.cluster import EXPECTED, node, until

PREFIX = "tidelog-chaos"
# Names of links have at most 15 characters.
LINK_PREFIX = "tlc"
CLIENTS = 0
# For tests of networks (RFC 2544): nobody's addresses. Each run has 14 of them.
ADDRESSES = ipaddress.ip_network("198.18.0.0/15")
SUBNET_BITS = 28
COMMAND_S = 30
PATIENCE_S = 60
MIB = 1 << 20

SETTINGS = {
    "offsets.topic.num.partitions": 3,
    "auto.create.topics.enable": "false",
    "broker.session.timeout.ms": 3000,
    # Leaderships go back while faults go on.
    "leader.imbalance.check.interval.seconds": 5,
    # Small files, so that journal files are used again and segments end all the time.
    "journal.file.bytes": 4 * MIB,
    "journal.files.min": 3,
    "journal.bytes.max": 24 * MIB,
    "log.segment.bytes": MIB,
    "disk.reserve.bytes": MIB,
}
# Beside what harness/cluster.py expects: no majority of the controllers can be asked.
ALWAYS_EXPECTED = [
    *EXPECTED,
    r"no producer ids from the controller",
    r"is reachable from other machines, and there is no authentication",
]
FORGETFUL = r"test mode: everything that was not synced is lost"


def run(*command, stdin=None):
    """A command that must do what it is told; what it printed."""
    done = subprocess.run(list(map(str, command)), input=stdin, capture_output=True, text=True, timeout=COMMAND_S)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def attempt(*command):
    """A command that may fail, where something is taken down that may be gone."""
    subprocess.run(list(map(str, command)), capture_output=True, timeout=COMMAND_S)


def unable():
    """Why this process can make no namespaces; None if it can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    if missing := [tool for tool in ("ip", "tc", "nft", "mount") if shutil.which(tool) is None]:
        return f"not installed: {', '.join(missing)} (Debian's iproute2, nftables, mount)"
    probe = f"{PREFIX}-{os.getpid()}-probe"
    try:
        run("ip", "netns", "add", probe)
        run("ip", "netns", "exec", probe, "nft", "add", "table", "bridge", "probe")
    except RuntimeError as error:
        return f"no right to make namespaces: {error}"
    finally:
        attempt("ip", "netns", "del", probe)
    return None


def remove_leftovers():
    """Takes down what runs left behind that are dead."""

    def is_dead(pid):
        return not Path(f"/proc/{pid}").exists()

    owned = re.compile(rf"^(?:{PREFIX}-|{LINK_PREFIX})(\d+)(?:-.*)?$")
    for source, target in (line.split()[:2] for line in Path("/proc/self/mounts").read_text().splitlines()):
        if (owner := owned.match(source)) and is_dead(owner[1]):
            attempt("umount", "--lazy", target)
    for link in json.loads(run("ip", "-j", "link", "show") or "[]"):
        if (owner := owned.match(link["ifname"])) and is_dead(owner[1]):
            attempt("ip", "link", "del", link["ifname"])
    folder = Path("/run/netns")
    for namespace in folder.iterdir() if folder.is_dir() else ():
        if (owner := owned.match(namespace.name)) and is_dead(owner[1]):
            attempt("ip", "netns", "del", namespace.name)


class Network:
    """A bridge with one namespace for each broker on it, and the clients' address. `drop` and `limit` do not add up: each call says
    all that holds from then on."""

    def __init__(self, numbers):
        self.numbers = list(numbers)
        self.stem, self.link = f"{PREFIX}-{os.getpid()}", f"{LINK_PREFIX}{os.getpid()}"
        self.hub = f"{self.stem}-hub"
        self.subnet = self._free_subnet()
        hosts = [str(host) for host in self.subnet.hosts()]
        self.addresses = {CLIENTS: hosts[0]} | {number: hosts[number] for number in self.numbers}

    @staticmethod
    def _free_subnet():
        """One that no address of this machine is in; another one for each process."""
        taken = [
            ipaddress.ip_network(f"{address['local']}/{address['prefixlen']}", strict=False)
            for link in json.loads(run("ip", "-j", "-4", "addr", "show")) for address in link.get("addr_info", [])
        ]  # fmt: skip
        subnets = list(ADDRESSES.subnets(new_prefix=SUBNET_BITS))
        first = os.getpid() % len(subnets)
        for subnet in itertools.chain(subnets[first:], subnets[:first]):
            if not any(subnet.overlaps(other) for other in taken):
                return subnet
        raise RuntimeError(f"all of {ADDRESSES} is taken")

    def namespace(self, number):
        return f"{self.stem}-{number}"

    def make(self):
        for namespace in (self.hub, *map(self.namespace, self.numbers)):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "-n", self.hub, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", self.hub, "link", "set", "bridge", "up")
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "clients", "netns", self.hub)
        run("ip", "-n", self.hub, "link", "set", "clients", "master", "bridge", "up")
        run("ip", "addr", "add", f"{self.addresses[CLIENTS]}/{SUBNET_BITS}", "dev", self.link)
        run("ip", "link", "set", self.link, "up")
        for number in self.numbers:
            inside = self.namespace(number)
            run("ip", "-n", self.hub, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", inside)
            run("ip", "-n", self.hub, "link", "set", f"port{number}", "master", "bridge", "up")
            run("ip", "-n", inside, "addr", "add", f"{self.addresses[number]}/{SUBNET_BITS}", "dev", "eth0")
            run("ip", "-n", inside, "link", "set", "eth0", "up")

    def remove(self):
        """Takes all of it down, also when only a part was made. The brokers have ended."""
        attempt("ip", "link", "del", self.link)
        for namespace in (*map(self.namespace, self.numbers), self.hub):
            attempt("ip", "netns", "del", namespace)

    def drop(self, pairs):
        """What the first of a pair sends to the second vanishes; each is a broker or CLIENTS. Nothing else does."""
        rules = "".join(f"    ip saddr {self.addresses[a]} ip daddr {self.addresses[b]} drop\n" for a, b in pairs)
        # One transaction; the first line is there for the second.
        run(
            "ip", "netns", "exec", self.hub, "nft", "-f", "-",
            stdin="add table bridge chaos\ndelete table bridge chaos\ntable bridge chaos {\n  chain forward {\n"
            f"    type filter hook forward priority 0; policy accept;\n{rules}  }}\n}}\n",
        )  # fmt: skip

    def limit(self, number, rate):
        """All that goes to the broker and all that comes from it, each at most at this rate; None: as fast as it can."""
        for namespace, link in ((self.hub, f"port{number}"), (self.namespace(number), "eth0")):
            if rate:
                shape = ["tbf", "rate", rate, "burst", "16kb", "latency", "400ms"]
                run("tc", "-n", namespace, "qdisc", "replace", "dev", link, "root", *shape)
            else:
                run("tc", "-n", namespace, "qdisc", "del", "dev", link, "root")


class Disk:
    """A file system of its own for a broker's data, small enough to be filled."""

    def __init__(self, mount, mib):
        self.mount, self.mib = mount, mib

    def make(self):
        self.mount.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", f"size={self.mib}m", f"{PREFIX}-{os.getpid()}", self.mount)

    def remove(self):
        attempt("umount", "--lazy", self.mount)

    def fill(self):
        """Takes what is left, to the last byte."""
        with (self.mount / "filler").open("wb", buffering=0) as filler:
            for size in (MIB, 4096):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError as error:
                    if "No space" not in str(error):
                        raise

    def free(self):
        (self.mount / "filler").unlink(missing_ok=True)


class Node(TidelogBroker):
    """A broker in a namespace, on a disk of its own."""

    def __init__(self, home, number, network, disk, settings):
        self.host, self.namespace, self.disk = network.addresses[number], network.namespace(number), disk
        self.peer_address = f"{self.host}:9093"
        own = {"node.id": number, "inter.broker.listener": self.peer_address, "http.listeners": f"http://{self.host}:9094"}
        super().__init__(home, SETTINGS | settings | own)
        # Nobody else is in its namespace.
        self.http_port = 9094
        self.bound = {"PLAINTEXT": f"{self.host}:9092"}
        self.advertised = dict(self.bound)
        self.data_dir = disk.mount / "data"

    def _command(self):
        # It executes the broker, so the process is the broker's.
        return ["ip", "netns", "exec", self.namespace, *super()._command()]

    def http(self, path, timeout_s=2):
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.http_port}{path}", timeout=timeout_s) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


class Cluster:
    """Brokers by number, which of them are down on purpose, and what their logs may say.

    Brokers die with the thread that started them: only the test's main thread may call what starts one.
    """

    def __init__(self, nodes, network=None):
        self.nodes, self.network = nodes, network
        self.down = set(nodes)
        self.expected = {number: list(ALWAYS_EXPECTED) for number in nodes}

    @property
    def address(self):
        return ",".join(broker.address for broker in self.nodes.values())

    def start(self):
        """All of them as one cluster in which each decides on the metadata, with a topic for offsets on all."""
        for number in self.nodes:
            self.bring_back(number)
        everybody = sorted(self.nodes)
        first = next(iter(self.nodes.values())).address
        until(lambda: asked(first, voters), lambda found: found == everybody)
        until(lambda: asked(first, find_coordinator, "the-first"), lambda code: code == 0)
        self.settle([OFFSETS_TOPIC])

    def _spawn(self, number):
        self.nodes[number].spawn()

    def bring_back(self, *numbers):
        """Starts them together, and returns once all of them are ready: by itself one may wait for the others."""
        for number in numbers:
            self._spawn(number)
        deadline = time.monotonic() + START_TIMEOUT_S
        for number in numbers:
            while not self._is_ready(number):
                assert time.monotonic() < deadline, f"broker {number} is not ready:\n{self.nodes[number].log_tail()}"
                time.sleep(0.05)
        self.down -= set(numbers)

    def _is_ready(self, number):
        broker = self.nodes[number]
        code = broker.process.poll()
        assert code is None, f"broker {number} exited with {code} at start:\n{broker.log_tail()}"
        try:
            return broker.http("/health/ready")[0] == 200
        except OSError:
            return False

    def kill(self, *numbers):
        """kill -9 of all of them, as nearly at once as it goes."""
        self.down |= set(numbers)
        for number in numbers:
            self.nodes[number].process.kill()
        for number in numbers:
            self.nodes[number].process.wait(PATIENCE_S)

    def stop(self, number):
        """SIGTERM; it must end in order."""
        self.down.add(number)
        self.nodes[number].stop()

    def signal(self, number, name):
        self.nodes[number].process.send_signal(getattr(signal, name))

    def check(self):
        """Nobody has ended who was not told to."""
        for number in self.nodes.keys() - self.down:
            code = self.nodes[number].process.poll()
            assert code is None, f"broker {number} ended by itself with {code}:\n{self.nodes[number].log_tail()}"

    def settle(self, topics, patience_s=PATIENCE_S):
        """Waits until each broker says of each partition that it is led and that all replicas are in sync."""
        everybody = sorted(self.nodes)

        def unsettled():
            left = []
            for number, broker in self.nodes.items():
                for topic in topics:
                    found = asked(broker.address, placements, topic)
                    if not isinstance(found, dict) or not found:
                        left.append(f"broker {number} of {topic}: {found}")
                        continue
                    left += [
                        f"broker {number} of {topic}-{partition}: {one}" for partition, one in found.items()
                        if one.leader not in everybody or sorted(one.isr) != everybody
                    ]  # fmt: skip
            return left

        until(unsettled, lambda left: left == [], patience_s)

    def complaints(self):
        """What a person would have to look at, by broker."""
        told = {number: broker.complaints(self.expected[number]) for number, broker in self.nodes.items()}
        return {number: lines for number, lines in told.items() if lines}

    def end(self):
        """SIGTERM to each, and a look at what all have said."""
        for number in sorted(self.nodes.keys() - self.down):
            self.stop(number)
        told = [f"broker {number}: {line}" for number, lines in self.complaints().items() for line in lines[:20]]
        assert not told, "unexpected in the logs:\n  " + "\n  ".join(told)


class ForgetfulCluster(Cluster):
    """Brokers of the fault build: the end of a process is a power loss. Each start has another seed of what reaches the disk
    without a sync."""

    def __init__(self, nodes):
        super().__init__(nodes)
        self.seeds = itertools.count(1)
        for expected in self.expected.values():
            expected.append(FORGETFUL)

    def _spawn(self, number):
        self.nodes[number].environment = {"TIDELOG_TEST_VOLATILE_STORAGE": str(next(self.seeds))}
        super()._spawn(number)


@contextmanager
def in_namespaces(folder, disk_mib):
    """A cluster in namespaces, running. What was made is taken down, however it ends."""
    remove_leftovers()
    secret = folder / "secret"
    secret.write_text("known to these three and nobody else")
    secret.chmod(0o600)
    network, nodes = Network(BROKERS), {}
    with ExitStack() as undo:
        undo.callback(network.remove)
        network.make()
        for number in BROKERS:
            home = folder / f"broker{number}"
            disk = Disk(home / "disk", disk_mib)
            undo.callback(disk.remove)
            disk.make()
            settings = {"cluster.secret.file": secret}
            if nodes:
                settings["cluster.join"] = nodes[BROKERS[0]].peer_address
            nodes[number] = Node(home, number, network, disk, settings)
            undo.callback(nodes[number].discard)
        cluster = Cluster(nodes, network)
        cluster.start()
        yield cluster


@contextmanager
def forgetful(folder):
    """A cluster on loopback of brokers that forget, running."""
    settings, nodes = {name.replace(".", "_"): size for name, size in SETTINGS.items()}, {}
    with ExitStack() as undo:
        for number in BROKERS:
            nodes[number] = node(folder, number, nodes[BROKERS[0]].peer_address if nodes else None, **settings)
            undo.callback(nodes[number].discard)
        cluster = ForgetfulCluster(nodes)
        cluster.start()
        yield cluster
