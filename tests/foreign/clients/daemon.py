"""A client in another language: a process that takes one JSON request a line and answers one JSON line each.

Bytes travel as base64. Requests may be answered out of order, since group members run beside everything else.
"""

import base64
import itertools
import json
import subprocess
import threading

from .base import Ack, Client, ClientError, Member, Reader, Rec


def pack(data):
    return None if data is None else base64.b64encode(data).decode()


def unpack(text):
    return None if text is None else base64.b64decode(text)


class Daemon:
    """The process, and who waits for which answer."""

    def __init__(self, command, env=None):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        self.ids = itertools.count(1)
        self.waiting, self.lock, self.noise = {}, threading.Lock(), []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._read_noise, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            try:
                answer = json.loads(line)
            except ValueError:
                self.noise.append(line)
                continue
            with self.lock:
                slot = self.waiting.pop(answer["id"], None)
            if slot:
                slot["answer"] = answer
                slot["done"].set()
        with self.lock:
            left, self.waiting = self.waiting, {}
        for slot in left.values():
            slot["done"].set()

    def _read_noise(self):
        for line in self.process.stderr:
            self.noise.append(line)

    def call(self, op, timeout_s=60, **args):
        """One request; raises ClientError when the client was told no."""
        slot = {"done": threading.Event(), "answer": None}
        with self.lock:
            number = next(self.ids)
            self.waiting[number] = slot
            self.process.stdin.write(json.dumps({"id": number, "op": op} | args) + "\n")
            self.process.stdin.flush()
        if not slot["done"].wait(timeout_s) or slot["answer"] is None:
            raise AssertionError(f"no answer to {op}:\n" + "".join(self.noise[-30:]))
        answer = slot["answer"]
        if "error" in answer:
            raise ClientError(answer["error"].get("code"), answer["error"].get("message"))
        return answer.get("ok")

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _Reader(Reader):
    def __init__(self, daemon, handle):
        self.daemon, self.handle = daemon, handle

    def poll(self, count, timeout_s):
        found = self.daemon.call("poll", handle=self.handle, count=count, timeout_ms=int(timeout_s * 1000))
        return [
            Rec(unpack(r["value"]), unpack(r["key"]), [(n, unpack(v)) for n, v in r["headers"]], r["timestamp"],
                r["partition"], r["offset"])
            for r in found
        ]  # fmt: skip

    def close(self):
        self.daemon.call("close", handle=self.handle)


class _Member(Member):
    def __init__(self, daemon, handle):
        super().__init__()
        self.daemon, self.handle = daemon, handle

    def _refresh(self):
        state = self.daemon.call("member_state", handle=self.handle, since=len(self._received))
        with self._lock:
            self._received += [(p, o, unpack(v)) for p, o, v in state["received"]]
            self._assignment = state["assignment"]

    def received(self):
        if self.handle is not None:
            self._refresh()
        return super().received()

    def assignment(self):
        if self.handle is not None:
            self._refresh()
        return super().assignment()

    def stop(self):
        self.daemon.call("member_stop", handle=self.handle)
        self._refresh()
        self.daemon.call("close", handle=self.handle)
        self.handle = None
        self._assignment = []


class DaemonClient(Client):
    """A client behind a Daemon; subclasses start it."""

    def __init__(self, address):
        super().__init__(address)
        self.daemon = self._spawn()

    def _spawn(self):
        raise NotImplementedError

    def close(self):
        self.daemon.close()

    def produce(self, topic, records, *, codec="none", acks=-1, idempotent=False, max_bytes=None):
        packed = [
            {"value": pack(r.value), "key": pack(r.key), "headers": [[n, pack(v)] for n, v in r.headers],
             "timestamp": r.timestamp, "partition": r.partition}
            for r in records
        ]  # fmt: skip
        acked = self.daemon.call(
            "produce", topic=topic, records=packed, codec=codec, acks=acks, idempotent=idempotent, max_bytes=max_bytes
        )
        return [] if acks == 0 else [Ack(p, o) for p, o in acked]

    def reader(self, topic, start, *, partition=0, reset=None, **more):
        timestamp = start[1] if isinstance(start, tuple) else None
        start = "timestamp" if isinstance(start, tuple) else start
        handle = self.daemon.call(
            "open", topic=topic, partition=partition, start=str(start), timestamp=timestamp, reset=reset or "none", **more
        )
        return _Reader(self.daemon, handle)

    def member(self, group, topic, *, strategy="range", instance=None, commit_metadata=""):
        handle = self.daemon.call(
            "member", group=group, topic=topic, strategy=strategy, instance=instance, metadata=commit_metadata
        )
        return _Member(self.daemon, handle)

    def committed(self, group, topic, partition):
        offset, metadata = self.daemon.call("committed", group=group, topic=topic, partition=partition)
        return (offset, metadata or "") if offset >= 0 else (-1, "")

    def commit(self, group, topic, partition, offset, metadata=""):
        self.daemon.call("commit", group=group, topic=topic, partition=partition, offset=offset, metadata=metadata)

    def create_topic(self, name, partitions=1, replication=1, configs=None):
        self.daemon.call("create_topic", name=name, partitions=partitions, replication=replication, configs=configs or {})

    def delete_topic(self, name):
        self.daemon.call("delete_topic", name=name)

    def create_partitions(self, name, count):
        self.daemon.call("create_partitions", name=name, count=count)

    def list_topics(self):
        return set(self.daemon.call("list_topics"))

    def topic_config(self, name):
        return self.daemon.call("topic_config", name=name)

    def set_config(self, name, key, value):
        self.daemon.call("set_config", name=name, key=key, value=value)

    def delete_records(self, topic, partition, before):
        self.daemon.call("delete_records", topic=topic, partition=partition, before=before)

    def list_groups(self):
        return set(self.daemon.call("list_groups"))

    def describe_group(self, group):
        state, members = self.daemon.call("describe_group", group=group)
        return state, members

    def delete_group(self, group):
        self.daemon.call("delete_group", group=group)
