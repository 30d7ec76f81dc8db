"""aiokafka: asyncio, and some of the oldest request versions still sent."""

import asyncio
import threading

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError, for_code
from aiokafka.structs import OffsetAndMetadata

from .base import BEGINNING, END, Ack, Client, ClientError, PollingMember, Reader, Rec


def _told(error):
    errno = getattr(error, "errno", None)
    return ClientError(errno if isinstance(errno, int) and errno >= -1 else None, f"{type(error).__name__}: {error}")


def _check(code, message=""):
    if code:
        raise ClientError(code, f"{for_code(code).__name__} {message or ''}")


class _Reader(Reader):
    def __init__(self, loop, consumer):
        self.loop, self.consumer = loop, consumer

    def poll(self, count, timeout_s):
        try:
            polled = self.loop(self.consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=count))
        except KafkaError as error:
            raise ClientError(1 if "OutOfRange" in type(error).__name__ else None, str(error)) from error
        return [
            Rec(m.value, m.key, list(m.headers), m.timestamp, m.partition, m.offset) for ms in polled.values() for m in ms
        ]

    def close(self):
        self.loop(self.consumer.stop())


class _Member(PollingMember):
    def __init__(self, loop, settings, topic, commit_metadata):
        super().__init__()
        self.loop, self.settings, self.topic, self.commit_metadata = loop, settings, topic, commit_metadata

    def _open(self):
        async def start():
            self.consumer = AIOKafkaConsumer(self.topic, **self.settings)
            await self.consumer.start()

        self.loop(start())

    def _poll_and_commit(self):
        polled = self.loop(self.consumer.getmany(timeout_ms=100))
        got = [(m.partition, m.offset, m.value) for messages in polled.values() for m in messages]
        if polled:
            self.loop(self.consumer.commit({tp: (ms[-1].offset + 1, self.commit_metadata) for tp, ms in polled.items()}))
        return got

    def _partitions(self):
        return [p.partition for p in self.consumer.assignment()]

    def _close(self):
        self.loop(self.consumer.stop())


class AioKafka(Client):
    """aiokafka, newest."""

    name = "aiokafka"
    lacks = {
        "delete_group": "aiokafka's administration client cannot delete groups",
        "incremental_configs": "aiokafka only has AlterConfigs, which replaces all settings",
    }

    def __init__(self, address):
        super().__init__(address)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._admin = None

    def close(self):
        if self._admin:
            self.loop(self._admin.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def loop(self, coroutine, timeout_s=40):
        """Runs on the client's own event loop and waits for the result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    @property
    def admin(self):
        if self._admin is None:

            async def start():
                self._admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
                await self._admin.start()

            self.loop(start())
        return self._admin

    def produce(self, topic, records, *, codec="none", acks=-1, idempotent=False, max_bytes=None):
        async def run():
            producer = AIOKafkaProducer(
                bootstrap_servers=self.address, acks="all" if acks == -1 else acks, enable_idempotence=idempotent,
                compression_type=None if codec == "none" else codec, max_request_size=max_bytes or (1 << 20),
                linger_ms=5, request_timeout_ms=10000,
            )  # fmt: skip
            await producer.start()
            try:
                futures = [
                    await producer.send(topic, r.value, r.key, r.partition, r.timestamp, [(n, v) for n, v in r.headers])
                    for r in records
                ]
                return [await future for future in futures]
            finally:
                await producer.stop()

        try:
            done = self.loop(run())
        except KafkaError as error:
            raise _told(error) from error
        return [] if acks == 0 else [Ack(m.partition, m.offset) for m in done]

    def reader(self, topic, start, *, partition=0, reset=None):
        where = TopicPartition(topic, partition)

        async def open_consumer():
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self.address, enable_auto_commit=False, auto_offset_reset=reset or "none",
                fetch_max_wait_ms=100, max_partition_fetch_bytes=4 << 20,
            )  # fmt: skip
            await consumer.start()
            consumer.assign([where])
            if start == BEGINNING:
                await consumer.seek_to_beginning(where)
            elif start == END:
                await consumer.seek_to_end(where)
            elif isinstance(start, tuple):
                found = (await consumer.offsets_for_times({where: start[1]}))[where]
                if found is None:
                    await consumer.seek_to_end(where)
                else:
                    consumer.seek(where, found.offset)
            else:
                consumer.seek(where, start)
            return consumer

        return _Reader(self.loop, self.loop(open_consumer()))

    def member(self, group, topic, *, strategy="range", instance=None, commit_metadata=""):
        assignor = {"range": RangePartitionAssignor, "sticky": StickyPartitionAssignor}[strategy]
        settings = {
            "bootstrap_servers": self.address, "group_id": group, "auto_offset_reset": "earliest",
            "enable_auto_commit": False, "partition_assignment_strategy": [assignor], "session_timeout_ms": 10000,
            "heartbeat_interval_ms": 300, "fetch_max_wait_ms": 100, "group_instance_id": instance,
        }  # fmt: skip
        return _Member(self.loop, settings, topic, commit_metadata).start()

    def _ask(self, coroutine):
        try:
            return self.loop(coroutine)
        except KafkaError as error:
            raise _told(error) from error

    def committed(self, group, topic, partition):
        where = TopicPartition(topic, partition)
        found = self._ask(self.admin.list_consumer_group_offsets(group, partitions=[where]))
        offset: OffsetAndMetadata = found[where]
        return (offset.offset, offset.metadata or "") if offset.offset >= 0 else (-1, "")

    def commit(self, group, topic, partition, offset, metadata=""):
        where = TopicPartition(topic, partition)

        async def run():
            consumer = AIOKafkaConsumer(bootstrap_servers=self.address, group_id=group, enable_auto_commit=False)
            await consumer.start()
            try:
                consumer.assign([where])
                await consumer.commit({where: (offset, metadata)})
            finally:
                await consumer.stop()

        self._ask(run())

    def create_topic(self, name, partitions=1, replication=1, configs=None):
        topic = NewTopic(name, partitions, replication, topic_configs=configs or {})
        _, code, message = self._ask(self.admin.create_topics([topic])).topic_errors[0]
        _check(code, message)

    def delete_topic(self, name):
        _check(self._ask(self.admin.delete_topics([name])).topic_error_codes[0][1])

    def create_partitions(self, name, count):
        _, code, message = self._ask(self.admin.create_partitions({name: NewPartitions(count)})).topic_errors[0]
        _check(code, message)

    def list_topics(self):
        return set(self.loop(self.admin.list_topics()))

    def topic_config(self, name):
        answers = self._ask(self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)]))
        code, message, _, _, entries = answers[0].resources[0]
        _check(code, message)
        return {entry[0]: entry[1] for entry in entries}

    def set_config(self, name, key, value):
        answers = self._ask(self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {key: value})]))
        code, message = answers[0].resources[0][:2]
        _check(code, message)

    def delete_records(self, topic, partition, before):
        self._ask(self.admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before)}))

    def list_groups(self):
        return {g[0] for g in self._ask(self.admin.list_consumer_groups())}

    def describe_group(self, group):
        found = self._ask(self.admin.describe_consumer_groups([group]))[0].groups[0]
        _check(found[0])
        return found[2], len(found[5])

    def delete_group(self, group):
        raise NotImplementedError(self.lacks["delete_group"])
