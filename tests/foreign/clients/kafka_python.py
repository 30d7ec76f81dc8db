"""kafka-python 3: pure Python, idempotent by default, with an administration client of its own."""

import re

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition, errors
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import KafkaError, OffsetOutOfRangeError

from .base import BEGINNING, END, Ack, Client, ClientError, PollingMember, Reader, Rec


def _told(error):
    """A ClientError with the broker's code; the library's own refusals have none."""
    errno = getattr(error, "errno", None)
    return ClientError(errno if isinstance(errno, int) and errno >= -1 else None, f"{type(error).__name__}: {error}")


class _Reader(Reader):
    def __init__(self, consumer):
        self.consumer = consumer

    def poll(self, count, timeout_s):
        try:
            polled = self.consumer.poll(int(timeout_s * 1000), max_records=count)
        except OffsetOutOfRangeError as error:
            raise ClientError(1, str(error)) from error
        except KafkaError as error:
            raise _told(error) from error
        return [
            Rec(m.value, m.key, list(m.headers), m.timestamp, m.partition, m.offset) for ms in polled.values() for m in ms
        ]

    def close(self):
        self.consumer.close()


class _Member(PollingMember):
    def __init__(self, settings, topic, commit_metadata):
        super().__init__()
        self.settings, self.topic, self.commit_metadata = settings, topic, commit_metadata

    def _open(self):
        self.consumer = KafkaConsumer(self.topic, **self.settings)

    def _poll_and_commit(self):
        polled = self.consumer.poll(100)
        got = [(m.partition, m.offset, m.value) for messages in polled.values() for m in messages]
        if polled:
            self.consumer.commit(
                {tp: OffsetAndMetadata(ms[-1].offset + 1, self.commit_metadata, -1) for tp, ms in polled.items()}
            )
        return got

    def _partitions(self):
        return [p.partition for p in self.consumer.assignment()]

    def _close(self):
        self.consumer.close(autocommit=False)


class KafkaPython(Client):
    """kafka-python, newest."""

    name = "kafka-python"
    lacks = {"null_header": "kafka-python refuses a header without a value"}

    def __init__(self, address):
        super().__init__(address)
        self._admin = None

    @property
    def admin(self):
        if self._admin is None:
            self._admin = KafkaAdminClient(bootstrap_servers=self.address)
        return self._admin

    def close(self):
        if self._admin:
            self._admin.close()

    def produce(self, topic, records, *, codec="none", acks=-1, idempotent=False, max_bytes=None):
        producer = KafkaProducer(
            bootstrap_servers=self.address, acks=acks, enable_idempotence=idempotent, linger_ms=5,
            compression_type=None if codec == "none" else codec, max_request_size=max_bytes or (1 << 20),
            max_block_ms=5000, delivery_timeout_ms=15000, request_timeout_ms=10000,
        )  # fmt: skip
        try:
            futures = [
                producer.send(topic, r.value, r.key, [(n, v) for n, v in r.headers], r.partition, r.timestamp)
                for r in records
            ]
            producer.flush(20)
            done = [future.get(20) for future in futures]
        except (KafkaError, ValueError) as error:
            raise _told(error) from error
        finally:
            producer.close(10)
        return [] if acks == 0 else [Ack(m.partition, m.offset) for m in done]

    def reader(self, topic, start, *, partition=0, reset=None):
        consumer = KafkaConsumer(
            bootstrap_servers=self.address, enable_auto_commit=False, auto_offset_reset=reset or "none",
            fetch_max_wait_ms=100, max_partition_fetch_bytes=4 << 20,
        )  # fmt: skip
        where = TopicPartition(topic, partition)
        consumer.assign([where])
        if start == BEGINNING:
            consumer.seek_to_beginning(where)
        elif start == END:
            consumer.seek_to_end(where)
        elif isinstance(start, tuple):
            found = consumer.offsets_for_times({where: start[1]})[where]
            consumer.seek_to_end(where) if found is None else consumer.seek(where, found.offset)
        else:
            consumer.seek(where, start)
        return _Reader(consumer)

    def member(self, group, topic, *, strategy="range", instance=None, commit_metadata=""):
        assignor = {"range": RangePartitionAssignor, "sticky": StickyPartitionAssignor}[strategy]
        settings = {
            "bootstrap_servers": self.address, "group_id": group, "auto_offset_reset": "earliest",
            "enable_auto_commit": False, "partition_assignment_strategy": [assignor], "session_timeout_ms": 10000,
            "heartbeat_interval_ms": 300, "fetch_max_wait_ms": 100, "group_instance_id": instance,
        }  # fmt: skip
        return _Member(settings, topic, commit_metadata).start()

    def _ask(self, call, *args, **kwargs):
        try:
            return call(*args, **kwargs)
        except KafkaError as error:
            raise _told(error) from error

    def committed(self, group, topic, partition):
        where = TopicPartition(topic, partition)
        found = self._ask(self.admin.list_group_offsets, {group: [where]})[group].get(where)
        return (found.offset, found.metadata or "") if found and found.offset >= 0 else (-1, "")

    def commit(self, group, topic, partition, offset, metadata=""):
        consumer = KafkaConsumer(bootstrap_servers=self.address, group_id=group, enable_auto_commit=False)
        try:
            where = TopicPartition(topic, partition)
            consumer.assign([where])
            self._ask(consumer.commit, {where: OffsetAndMetadata(offset, metadata, -1)})
        finally:
            consumer.close(autocommit=False)

    def create_topic(self, name, partitions=1, replication=1, configs=None):
        topic = NewTopic(name, partitions, replication, topic_configs=configs or {})
        self._ask(self.admin.create_topics, [topic])

    def delete_topic(self, name):
        self._ask(self.admin.delete_topics, [name])

    def create_partitions(self, name, count):
        self._ask(self.admin.create_partitions, {name: NewPartitions(count)})

    def list_topics(self):
        return set(self.admin.list_topics())

    def topic_config(self, name):
        resource = ConfigResource(ConfigResourceType.TOPIC, name)
        found = self._ask(self.admin.describe_configs, [resource], config_filter="all")
        settings = next(iter(next(iter(found.values())).values()))
        return {key: entry["value"] if isinstance(entry, dict) else entry for key, entry in settings.items()}

    def set_config(self, name, key, value):
        resource = ConfigResource(ConfigResourceType.TOPIC, name, {key: value})
        # The answer holds the error's text instead of raising it.
        outcome = self._ask(self.admin.alter_configs, [resource])["topic"][name]
        if outcome != "OK":
            raise ClientError(int(re.search(r"\[Error (-?\d+)\]", outcome)[1]), outcome)

    def delete_records(self, topic, partition, before):
        self._ask(self.admin.delete_records, {TopicPartition(topic, partition): before})

    def list_groups(self):
        return {g["group_id"] for g in self._ask(self.admin.list_groups)}

    def describe_group(self, group):
        found = self._ask(self.admin.describe_groups, [group])[group]
        return found["group_state"], len(found["members"])

    def delete_group(self, group):
        # The answer names the error's class instead of raising it.
        outcome = self._ask(self.admin.delete_groups, [group])[group]
        if outcome != "OK":
            raise ClientError(getattr(errors, outcome).errno, outcome)
