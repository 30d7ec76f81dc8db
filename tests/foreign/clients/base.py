"""What every adapter can do, in one vocabulary."""

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

BEGINNING, END = "beginning", "end"


class Ack(NamedTuple):
    """Where a record went, as the broker said."""

    partition: int
    offset: int


@dataclass
class Rec:
    """A record on its way in (`offset` unset) or out. Header names are strings, their order and repeats count."""

    value: bytes | None = None
    key: bytes | None = None
    headers: list = field(default_factory=list)
    timestamp: int | None = None
    partition: int = 0
    offset: int = -1

    def content(self):
        return self.key, self.value, [(n, v) for n, v in self.headers]


class ClientError(Exception):
    """What the client was told: Kafka's error code, or None where the client itself refused."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code


class Reader(ABC):
    """Reads one partition without a group."""

    @abstractmethod
    def poll(self, count, timeout_s):
        """At most `count` records, as soon as there are any; an empty list when the time is up."""

    @abstractmethod
    def close(self):
        """Gives everything back."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Member(ABC):
    """A group member that runs on its own: polls, commits what it got (as `commit_metadata` says), rebalances."""

    def __init__(self):
        self._lock = threading.Lock()
        self._received = []
        self._assignment = []

    def received(self):
        """What came in so far: [(partition, offset, value)]."""
        with self._lock:
            return list(self._received)

    def assignment(self):
        """The partitions held right now."""
        with self._lock:
            return sorted(self._assignment)

    @abstractmethod
    def stop(self):
        """Commits, leaves the group, ends. Raises what went wrong on the way."""


class PollingMember(Member):
    """A member that a thread of this process drives: subclasses say how to poll once."""

    def __init__(self):
        super().__init__()
        self._stopping = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def _run(self):
        try:
            self._open()
            while not self._stopping.is_set():
                records = self._poll_and_commit()
                with self._lock:
                    self._received += records
                    self._assignment = self._partitions()
        except Exception as error:  # told to whoever stops the member
            self._failure = error
        finally:
            try:
                self._close()
            except Exception as error:
                self._failure = self._failure or error

    def stop(self):
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the member did not end"
        with self._lock:
            self._assignment = []
        if self._failure:
            raise self._failure

    @abstractmethod
    def _open(self):
        """Joins the group."""

    @abstractmethod
    def _poll_and_commit(self):
        """Waits a moment, returns [(partition, offset, value)] and commits behind them."""

    @abstractmethod
    def _partitions(self):
        """The partitions assigned now."""

    @abstractmethod
    def _close(self):
        """Leaves the group."""


class Client(ABC):
    """One client library against one broker."""

    name = ""
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")
    # What the library lacks, each with the reason that a skipped test shows.
    lacks = {}

    def __init__(self, address):
        self.address = address

    def close(self):
        """Ends what the adapter keeps between calls."""

    # ---- records

    @abstractmethod
    def produce(self, topic, records, *, codec="none", acks=-1, idempotent=False, max_bytes=None):
        """Sends the records, waits for all of them, returns their Acks in order (none under acks=0)."""

    @abstractmethod
    def reader(self, topic, start, *, partition=0, reset=None):
        """A Reader from BEGINNING, END, an offset, or ("timestamp", ms). `reset` is auto.offset.reset."""

    def read(self, topic, start, count, *, partition=0, timeout_s=20, reset=None):
        """Exactly `count` records from `start`."""
        with self.reader(topic, start, partition=partition, reset=reset) as reader:
            return self.collect(reader, count, timeout_s)

    @staticmethod
    def collect(reader, count, timeout_s=20):
        import time

        records, deadline = [], time.monotonic() + timeout_s
        while len(records) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(records)} of {count} records after {timeout_s} s")
            records += reader.poll(count - len(records), 1.0)
        return records

    # ---- groups

    @abstractmethod
    def member(self, group, topic, *, strategy="range", instance=None, commit_metadata=""):
        """A running Member that starts at the beginning where nothing was committed."""

    @abstractmethod
    def committed(self, group, topic, partition):
        """(offset, metadata) that a group committed, (-1, "") if none."""

    @abstractmethod
    def commit(self, group, topic, partition, offset, metadata=""):
        """A commit without membership."""

    # ---- administration

    @abstractmethod
    def create_topic(self, name, partitions=1, replication=1, configs=None): ...

    @abstractmethod
    def delete_topic(self, name): ...

    @abstractmethod
    def create_partitions(self, name, count): ...

    @abstractmethod
    def list_topics(self):
        """The names of all topics."""

    @abstractmethod
    def topic_config(self, name):
        """{name: value} of all settings."""

    @abstractmethod
    def set_config(self, name, key, value):
        """Changes one setting and keeps the others."""

    @abstractmethod
    def delete_records(self, topic, partition, before): ...

    @abstractmethod
    def list_groups(self):
        """The ids of all groups."""

    @abstractmethod
    def describe_group(self, group):
        """(state as Kafka names it, number of members)."""

    @abstractmethod
    def delete_group(self, group): ...
