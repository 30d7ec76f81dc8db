"""A generator of load for `bench_failover.py`: a process that writes to its share of a topic's partitions at a steady rate,
follows their leaders, and remembers when each of them was acknowledged.

A partition has one write on its way at most. Writes to many partitions of one leader share a request; some requests a second
go to each leader, spread over time. What was refused, or lost with its connection, waits for the next answer of Metadata,
which is asked for again and again until nothing waits and nothing is overdue, and goes to the leader that it names, over a
connection of its own: answers come in the order of requests, so a partition that is late holds up only others that are.
A write that is overdue is given to a new leader as soon as there is one. Knows nothing of what happens to the brokers.
"""

import functools
import selectors
import signal
import socket
import struct
import time
from collections import Counter, deque
from dataclasses import dataclass

from failover_wire import ProduceRequests, metadata_request, number_of, read_metadata

# Requests to each leader for one write of every partition.
SLICES = 4
# How long a leader may wait for its followers.
TIMEOUT_MS = 1000
# A write without an answer for so long makes one ask who leads.
OVERDUE_S = 0.25
# From one question to the next, and until another broker is asked.
ASK_S, SILENCE_S = 0.025, 0.15
# From one attempt to connect to the next, and how long one may take: there is only loopback.
CONNECT_AGAIN_S, CONNECT_S = 0.05, 0.05
# A connection without an answer for so long is given up.
GIVE_UP_S = 10

STEADY, LATE = "steady", "late"


@dataclass
class Plan:
    """What a generator does; `addresses` by broker id, `rate` in writes a second to each partition."""

    topic: str
    partitions: list
    addresses: dict
    batch: bytes
    rate: float


class Write:
    """A Produce request without an answer yet."""

    __slots__ = ("broker", "live", "number", "partitions", "sent")

    def __init__(self, broker, partitions, number, sent):
        self.broker, self.partitions, self.number, self.sent = broker, partitions, number, sent
        # Partitions that have not been given to another leader since.
        self.live = len(partitions)


class Link:
    """A connection that waits for nothing: what cannot be sent at once, or ends, raises OSError."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), CONNECT_S)
        # Whoever connects to a free port of the own machine long enough reaches itself, and keeps the port from its owner.
        if self.socket.getsockname() == self.socket.getpeername():
            self.socket.close()
            raise ConnectionRefusedError
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.input = bytearray()
        self.unanswered = deque()
        self.numbers = 0
        self.is_closed = False

    def send(self, data):
        if self.socket.send(data) < len(data):
            raise ConnectionError("the broker does not read")

    def replies(self):
        """What has come, frame by frame."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionError("closed")
        self.input += data
        replies, at = [], 0
        while len(self.input) - at >= 4:
            end = at + 4 + struct.unpack_from(">i", self.input, at)[0]
            if end > len(self.input):
                break
            replies.append(bytes(self.input[at + 4 : end]))
            at = end
        del self.input[:at]
        return replies

    def close(self):
        self.is_closed = True
        self.socket.close()


class Scout:
    """Asks who leads: one broker for as long as it answers, then the next."""

    def __init__(self, plan, selector, learned):
        self.plan, self.selector, self.learned = plan, selector, learned
        self.order = deque(plan.addresses)
        self.link, self.asked, self.is_answered = None, 0, True

    def due(self):
        """When to ask again, or to give up waiting for an answer."""
        return self.asked + (ASK_S if self.is_answered else SILENCE_S)

    def ask(self, now):
        if not self.is_answered:
            self.turn()
        self.asked = now
        for _ in range(len(self.order)):
            try:
                if self.link is None:
                    self.link = Link(self.plan.addresses[self.order[0]])
                    self.selector.register(self.link.socket, selectors.EVENT_READ, functools.partial(self.receive, self.link))
                self.link.send(metadata_request(0, self.plan.topic))
                self.is_answered = False
                return
            except OSError:
                self.turn()

    def receive(self, link):
        if link.is_closed:
            return
        try:
            for reply in link.replies():
                self.is_answered = True
                self.learned(reply)
        except OSError:
            self.turn()

    def turn(self):
        if self.link is not None:
            self.selector.unregister(self.link.socket)
            self.link.close()
        self.link, self.is_answered = None, True
        self.order.rotate(-1)


class Generator:
    """See the module. Each partition is idle, on its way (in a Write), or waits for its leader."""

    def __init__(self, plan, control):
        self.plan, self.control = plan, control
        self.requests = ProduceRequests(plan.topic, plan.batch, plan.partitions, TIMEOUT_MS)
        self.slices = [plan.partitions[n::SLICES] for n in range(SLICES)]
        self.leaders = dict.fromkeys(plan.partitions, (None, -1))
        self.on_the_way, self.waiting = {}, set(plan.partitions)
        self.links, self.refused_until = {}, {}
        self.acknowledged, self.errors = [], Counter()
        self.metadata, self.is_over = None, False
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ, self.obey)
        self.scout = Scout(plan, self.selector, self.learn)

    def run(self):
        begun, turn, every = time.monotonic(), 0, 1 / (self.plan.rate * SLICES)
        while not self.is_over:
            now = time.monotonic()
            while begun + turn * every <= now:
                self.write(self.slices[turn % SLICES], now)
                turn += 1
            wake = begun + turn * every
            if self.is_in_trouble(now):
                if now >= self.scout.due():
                    self.scout.ask(now)
                wake = min(wake, self.scout.due())
            for key, _ in self.selector.select(max(wake - time.monotonic(), 0)):
                key.data()

    # ---- writing

    def write(self, partitions, now):
        self.send([p for p in partitions if p not in self.on_the_way and p not in self.waiting], STEADY, now)

    def send(self, partitions, kind, now):
        by_broker = {}
        for partition in partitions:
            by_broker.setdefault(self.leaders[partition][0], []).append(partition)
        for broker, led in by_broker.items():
            if broker is None or not self.sent(broker, led, kind, now):
                self.waiting.update(led)

    def sent(self, broker, partitions, kind, now):
        """Sends one request; False if the broker cannot be reached."""
        link = None
        try:
            link = self.link(broker, kind, now)
            link.numbers += 1
            link.send(self.requests.request(link.numbers, partitions))
        except OSError:
            if link is not None:
                self.drop(link)
            return False
        write = Write(broker, partitions, link.numbers, now)
        link.unanswered.append(write)
        self.on_the_way.update(dict.fromkeys(partitions, write))
        self.waiting.difference_update(partitions)
        return True

    def link(self, broker, kind, now):
        if (link := self.links.get((broker, kind))) is None:
            if now < self.refused_until.get(broker, 0):
                raise ConnectionRefusedError
            try:
                link = Link(self.plan.addresses[broker])
            except OSError:
                self.refused_until[broker] = now + CONNECT_AGAIN_S
                raise
            self.links[broker, kind] = link
            self.selector.register(link.socket, selectors.EVENT_READ, functools.partial(self.receive, link))
        return link

    def drop(self, link):
        """Ends a connection; what was on its way over it is to be sent again."""
        self.selector.unregister(link.socket)
        link.close()
        self.links = {at: other for at, other in self.links.items() if other is not link}
        for write in link.unanswered:
            self.take_back(write, write.partitions)

    def take_back(self, write, partitions):
        for partition in partitions:
            if self.on_the_way.get(partition) is write:
                del self.on_the_way[partition]
                self.waiting.add(partition)
                write.live -= 1

    # ---- answers

    def receive(self, link):
        if link.is_closed:
            return
        try:
            replies = link.replies()
        except OSError:
            self.drop(link)
            return
        now = time.monotonic()
        for reply in replies:
            write = link.unanswered.popleft()
            if number_of(reply) != write.number:
                raise RuntimeError(f"answer {number_of(reply)} came instead of {write.number}")
            self.settle(write, self.requests.answers(reply), now)

    def settle(self, write, answers, now):
        done = [partition for partition, error in answers if error == 0]
        for partition in done:
            # What another leader has been given meanwhile waits for that one's answer.
            if self.on_the_way.get(partition) is write:
                del self.on_the_way[partition]
        if done:
            self.acknowledged.append((now, done))
        if len(done) < len(answers):
            self.errors.update(error for _, error in answers if error)
            self.take_back(write, [partition for partition, error in answers if error])

    # ---- leaders

    def is_in_trouble(self, now):
        """Whether something waits for its leader, or for its answer for too long."""
        for link in list(self.links.values()):
            if link.unanswered and now - link.unanswered[0].sent > GIVE_UP_S:
                self.drop(link)
        writes = (write for link in self.links.values() for write in link.unanswered)
        return bool(self.waiting) or any(write.live and now - write.sent > OVERDUE_S for write in writes)

    def learn(self, reply):
        """Takes an answer of Metadata, and sends what waits to whom it names."""
        without_number = reply[4:]
        if without_number != self.metadata:
            self.metadata = without_number
            for led in read_metadata(reply):
                # A broker that was away may tell of the past.
                if led.partition in self.leaders and led.epoch >= self.leaders[led.partition][1]:
                    self.follow(led)
        self.send(list(self.waiting), LATE, time.monotonic())

    def follow(self, led):
        leader = None if led.leader < 0 else led.leader
        self.leaders[led.partition] = (leader, led.epoch)
        write = self.on_the_way.get(led.partition)
        if write is not None and leader not in (None, write.broker):
            self.take_back(write, [led.partition])

    # ---- what is asked of it: `gaps`, `counts`, `forget`, `use`, `end`

    def obey(self):
        try:
            name, *arguments = self.control.recv()
        except EOFError:
            name, arguments = "end", ()
        if name == "end":
            self.is_over = True
        else:
            self.control.send(getattr(self, name)(*arguments))

    def gaps(self, since, until):
        """Of each partition the longest time between two acknowledgements of which one came before `until` and the next after
        `since`: (begin, end). There is no end if the next one has not come, and no begin if none came before."""
        last, longest = {}, {}
        for moment, partitions in self.acknowledged:
            if moment > since:
                for partition in partitions:
                    before = last.get(partition, since)
                    if before < until:
                        begin, end = longest.get(partition, (since, since))
                        if moment - before > end - begin:
                            longest[partition] = (before, moment)
            last.update(dict.fromkeys(partitions, moment))
        for partition in self.plan.partitions:
            if last.get(partition, since) <= since:
                longest[partition] = (last.get(partition), None)
            elif last[partition] < until and time.monotonic() - last[partition] > OVERDUE_S:
                longest[partition] = (last[partition], None)
        return longest

    def counts(self, since, until):
        """How often each partition was acknowledged."""
        counts = Counter(dict.fromkeys(self.plan.partitions, 0))
        for moment, partitions in self.acknowledged:
            if since <= moment < until:
                counts.update(partitions)
        return dict(counts)

    def forget(self, before):
        """Drops what no later question is about."""
        self.acknowledged = [entry for entry in self.acknowledged if entry[0] >= before]

    def use(self):
        """Processor seconds of this process so far, and how often each error code came."""
        return time.process_time(), dict(self.errors)


def run(plan, control):
    """The process: works until it is told to end, or nobody is there to tell it."""
    # Ctrl-C goes to the whole group; whoever started this process ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Generator(plan, control).run()
