"""Who was promised what: every acknowledged record of a partition, and what became of it.

A record is acknowledged once, at one offset. From then on it is read, or it was removed: by retention, with everything
before it, or by compaction, because a newer record has its key or because it is a tombstone. Nothing else may happen to it.
"""

import array
import hashlib
import threading
from dataclasses import dataclass

UNKNOWN, NO_KEY, TOMBSTONE = 0, 0, 1


def _digest(data, special):
    """64 bits that stand for some bytes; `special` for none at all. Never UNKNOWN."""
    if data is None:
        return special
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) | 2


class _Column:
    """One number for each offset, UNKNOWN where none was set."""

    def __init__(self):
        self.numbers = array.array("Q")

    def __getitem__(self, offset):
        return self.numbers[offset] if offset < len(self.numbers) else UNKNOWN

    def __setitem__(self, offset, number):
        if offset >= len(self.numbers):
            self.numbers.extend([UNKNOWN] * (offset + 1 - len(self.numbers)))
        self.numbers[offset] = number


@dataclass
class Balance:
    """The two sides of one partition's books, in records."""

    acknowledged: int = 0
    read: int = 0
    removed_by_retention: int = 0
    compacted_away: int = 0

    def __add__(self, other):
        return Balance(*(a + b for a, b in zip(self.numbers(), other.numbers())))

    def numbers(self):
        return self.acknowledged, self.read, self.removed_by_retention, self.compacted_away

    def __str__(self):
        return "acknowledged %d = read %d + removed by retention %d + compacted away %d" % self.numbers()


class Book:
    """The records of one partition. Writers and readers run beside each other: a record may be read before its writer hears of it."""

    def __init__(self, topic, partition, compacted=False):
        self.topic, self.partition, self.compacted = topic, partition, compacted
        self.lock = threading.Lock()
        self.acked, self.keys, self.read = _Column(), _Column(), _Column()
        self.position = 0
        self.count = 0

    def __str__(self):
        return f"{self.topic}-{self.partition}"

    def acknowledge(self, offset, key, value):
        """The broker promised to keep this record at this offset."""
        with self.lock:
            assert self.acked[offset] == UNKNOWN, f"{self}: offset {offset} was acknowledged twice"
            self.acked[offset] = _digest(value, TOMBSTONE)
            self.keys[offset] = _digest(key, NO_KEY)
            self.count += 1

    def saw(self, offset, value, log_start):
        """The reader that follows the log got this record. `log_start()` asks the broker: only what is before it may be skipped,
        unless the log is compacted."""
        assert offset >= self.position, f"{self}: {offset} was read after {self.position - 1}"
        if offset > self.position and not self.compacted:
            start = log_start()
            assert start >= offset, f"{self}: {self.position} to {offset} were skipped, and the log starts at {start}"
        with self.lock:
            self.read[offset] = _digest(value, TOMBSTONE)
        self.position = offset + 1

    def moved_to(self, log_start):
        """Retention overtook the reader."""
        assert log_start > self.position, f"{self}: {self.position} is out of range, and the log starts at {log_start}"
        self.position = log_start

    def balance(self, stored, log_start, end):
        """Compares the promises with what was read along the way and with `stored`, {offset: value} of the whole log now.

        Returns the balance of both readings: of the reader that followed, and of what is stored.
        """
        assert self.count == end == len(self.acked.numbers), f"{self}: {self.count} acknowledged, and the log ends at {end}"
        newest = {self.keys[offset]: offset for offset in range(end)}
        followed, now = Balance(acknowledged=end), Balance(acknowledged=end)
        for offset in range(end):
            promised = self.acked[offset]
            for side, found in ((followed, self.read[offset]), (now, _digest(stored[offset], TOMBSTONE) if offset in stored else UNKNOWN)):
                if found != UNKNOWN:
                    assert found == promised, f"{self}: another record than was acknowledged at {offset}"
                    side.read += 1
                elif offset < log_start:
                    side.removed_by_retention += 1
                elif self.compacted and (newest[self.keys[offset]] > offset or promised == TOMBSTONE):
                    side.compacted_away += 1
                else:
                    raise AssertionError(f"{self}: the record at {offset} is gone; the log starts at {log_start}, ends at {end}")
        assert all(log_start <= offset < end for offset in stored), f"{self}: records outside of the log"
        return followed, now
