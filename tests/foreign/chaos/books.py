"""Who was promised what: each record that a producer sent, what it was told, and what stands in the partition in the end.

A record says who sent it and which one it is of those that this producer sent to the partition. One that was acknowledged is
there, once, where it was said to be. One that failed, or whose fate the producer never heard, is there or not, but at most
once. All of a producer are in the order in which they were sent, at offsets dense from 0.
"""

import math
import threading
from array import array
from collections import defaultdict
from dataclasses import dataclass, field

UNKNOWN = -1
# Values are of all lengths up to this, so that batches are.
PADDING_BYTES = 400
TOLD_MAX = 5


def value(producer, partition, sequence):
    """The value of a record; the same each time it is asked for."""
    return b"%s %d %d " % (producer.encode(), partition, sequence) + b"." * (sequence * 7919 % (PADDING_BYTES + 1))


def parse(data):
    """(producer, partition, sequence) of a value; None for one that no producer made."""
    try:
        producer, partition, sequence, _ = data.split(b" ", 3)
        found = producer.decode(), int(partition), int(sequence)
    except (AttributeError, ValueError):
        return None
    return found if value(*found) == data else None


class Ledger:
    """The records of one producer, by partition and sequence number. Belongs to the producer's thread; others may look."""

    def __init__(self, producer, partitions):
        self.producer = producer
        self.offsets = [array("q") for _ in range(partitions)]
        # One beyond the newest that was acknowledged.
        self.acknowledged = [0] * partitions
        self.failed = 0

    def take(self, partition):
        """The sequence number of the next record for the partition, and its value."""
        self.offsets[partition].append(UNKNOWN)
        sequence = len(self.offsets[partition]) - 1
        return sequence, value(self.producer, partition, sequence)

    def acknowledge(self, partition, sequence, offset):
        """The cluster promised to keep it there."""
        assert offset >= 0, f"{self.producer}: {sequence} was acknowledged without an offset"
        assert self.offsets[partition][sequence] == UNKNOWN, f"{self.producer}: {sequence} was acknowledged twice"
        self.offsets[partition][sequence] = offset
        self.acknowledged[partition] = max(self.acknowledged[partition], sequence + 1)

    def sent(self, partition):
        return len(self.offsets[partition])


@dataclass
class Balance:
    """Records of a partition, or of all."""

    acknowledged: int = 0
    unknown_there: int = 0
    unknown_gone: int = 0

    def __add__(self, other):
        return Balance(
            self.acknowledged + other.acknowledged, self.unknown_there + other.unknown_there, self.unknown_gone + other.unknown_gone
        )

    def __str__(self):
        return f"{self.acknowledged} acknowledged and there; of unknown fate {self.unknown_there} there, {self.unknown_gone} not"


@dataclass
class Problems:
    """What may not be, by kind."""

    partition: int
    found: dict = field(default_factory=lambda: defaultdict(list))

    def add(self, kind, text):
        self.found[kind].append(text)

    def told(self):
        return [
            f"partition {self.partition}: {len(texts)} {kind}: {'; '.join(texts[:TOLD_MAX])}" for kind, texts in self.found.items()
        ]


def _was_sent(found, partition, ledgers):
    producer, to, sequence = found
    return producer in ledgers and to == partition and 0 <= sequence < ledgers[producer].sent(partition)


def _place(stored, partition, ledgers, problems):
    """{producer: {sequence: offset}} of what stands there."""
    places, before = defaultdict(dict), -1
    newest = defaultdict(lambda: -1)
    for offset, data in stored:
        if offset != before + 1:
            problems.add("gaps", f"{offset} comes after {before}")
        before = offset
        found = parse(data)
        if found is None or not _was_sent(found, partition, ledgers):
            problems.add("that nobody sent", f"{data!r:.80} at {offset}")
            continue
        producer, _, sequence = found
        if sequence in places[producer]:
            problems.add("duplicated", f"{producer} {sequence} at {places[producer][sequence]} and {offset}")
            continue
        if sequence < newest[producer]:
            problems.add("reordered", f"{producer} {sequence} at {offset}, after {newest[producer]}")
        newest[producer] = max(newest[producer], sequence)
        places[producer][sequence] = offset
    return places


def check(partition, ledgers, stored):
    """Compares what producers were told with the whole partition, [(offset, value)] as it is read: (balance, problems). `ledgers` are
    by producer."""
    problems, balance = Problems(partition), Balance()
    places = _place(stored, partition, ledgers, problems)
    for producer, ledger in ledgers.items():
        there = places[producer]
        for sequence, promised in enumerate(ledger.offsets[partition]):
            offset = there.get(sequence)
            if promised == UNKNOWN:
                balance.unknown_there += offset is not None
                balance.unknown_gone += offset is None
            elif offset is None:
                problems.add("lost", f"{producer} {sequence}, acknowledged at {promised}")
            elif offset != promised:
                problems.add("elsewhere", f"{producer} {sequence}, acknowledged at {promised}, is at {offset}")
            else:
                balance.acknowledged += 1
    return balance, problems.told()


class Committed:
    """What brokers said that groups have committed. It never goes back.

    A coordinator that was cut off does not know that there is a later one, and goes on to say what it knew, as in Kafka. So each
    answer carries the term of who gave it, and is compared with those of the same term and earlier ones.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.newest = defaultdict(dict)

    def floor(self, what, term):
        """The least that an answer of this term may be, to a question that is asked from now on."""
        with self.lock:
            return max((offset for of, offset in self.newest[what].items() if of <= term), default=UNKNOWN)

    def highest(self, what):
        return self.floor(what, math.inf)

    def saw(self, what, term, offset, floor, who):
        """Takes an answer in; `floor` is from before the question."""
        assert offset >= floor, f"{what} was committed up to {floor}, and then up to {offset}, says {who} of term {term}"
        with self.lock:
            self.newest[what][term] = max(self.newest[what].get(term, UNKNOWN), offset)
