"""confluent-kafka-python: librdkafka as most languages use it."""

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    ConsumerGroupTopicPartitions,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from .base import BEGINNING, END, Ack, Client, ClientError, PollingMember, Reader, Rec


def _told(error):
    """A ClientError; librdkafka's own codes are negative and below -1, but those for a broker's answer are Kafka's."""
    error = error.args[0] if isinstance(error, KafkaException) else error
    code = error.code()
    local = {KafkaError._UNKNOWN_TOPIC: 3, KafkaError._UNKNOWN_PARTITION: 3, KafkaError._AUTO_OFFSET_RESET: 1}
    return ClientError(local.get(code, code if code >= -1 else None), error.str())


class _Reader(Reader):
    def __init__(self, consumer):
        self.consumer = consumer

    def poll(self, count, timeout_s):
        records = []
        for message in self.consumer.consume(count, timeout_s):
            if message.error():
                raise _told(message.error())
            records.append(
                Rec(message.value(), message.key(), message.headers() or [], message.timestamp()[1],
                    message.partition(), message.offset())
            )  # fmt: skip
        return records

    def close(self):
        self.consumer.close()


class _Member(PollingMember):
    def __init__(self, settings, topic, commit_metadata):
        super().__init__()
        self.settings, self.topic, self.commit_metadata = settings, topic, commit_metadata

    def _open(self):
        self.consumer = Consumer(self.settings)
        self.consumer.subscribe([self.topic])

    def _poll_and_commit(self):
        got = []
        for message in self.consumer.consume(100, 0.1):
            if message.error():
                raise _told(message.error())
            got.append((message.partition(), message.offset(), message.value()))
        if got:
            ends = {p: o + 1 for p, o, _ in got}
            self.consumer.commit(
                offsets=[TopicPartition(self.topic, p, o, self.commit_metadata) for p, o in ends.items()],
                asynchronous=False,
            )
        return got

    def _partitions(self):
        return [p.partition for p in self.consumer.assignment()]

    def _close(self):
        self.consumer.close()


class Confluent(Client):
    """librdkafka, newest."""

    name = "confluent"

    def __init__(self, address):
        super().__init__(address)
        self.admin = AdminClient(self._common())

    def _common(self):
        return {"bootstrap.servers": self.address, "log_level": 2, "allow.auto.create.topics": False}

    def produce(self, topic, records, *, codec="none", acks=-1, idempotent=False, max_bytes=None):
        settings = self._common() | {
            "compression.type": codec, "acks": acks, "enable.idempotence": idempotent, "linger.ms": 5,
            "message.timeout.ms": 10000, "topic.metadata.propagation.max.ms": 500,
        }  # fmt: skip
        settings.pop("allow.auto.create.topics")
        if max_bytes:
            settings["message.max.bytes"] = max_bytes
        producer, reports = Producer(settings), [None] * len(records)

        def report(index):
            def callback(error, message):
                reports[index] = error or Ack(message.partition(), message.offset())

            return callback

        try:
            for index, r in enumerate(records):
                more = {"headers": r.headers} if r.headers else {}
                producer.produce(
                    topic, r.value, r.key, r.partition, on_delivery=report(index), timestamp=r.timestamp or 0, **more
                )
        except KafkaException as error:
            raise _told(error) from error
        assert producer.flush(20) == 0, "records left in the producer's queue"
        for failed in reports:
            if isinstance(failed, KafkaError):
                raise _told(failed)
        return [] if acks == 0 else reports

    def reader(self, topic, start, *, partition=0, reset=None):
        settings = {"group.id": "none", "enable.auto.commit": False, "auto.offset.reset": reset or "error"}
        consumer = Consumer(self._common() | settings | {"fetch.wait.max.ms": 100})
        offset = {BEGINNING: OFFSET_BEGINNING, END: OFFSET_END}.get(start, start)
        if isinstance(start, tuple):
            (found,) = consumer.offsets_for_times([TopicPartition(topic, partition, start[1])], timeout=10)
            offset = found.offset
        consumer.assign([TopicPartition(topic, partition, offset)])
        return _Reader(consumer)

    def member(self, group, topic, *, strategy="range", instance=None, commit_metadata=""):
        settings = self._common() | {
            "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "partition.assignment.strategy": strategy, "session.timeout.ms": 10000, "heartbeat.interval.ms": 300,
            "fetch.wait.max.ms": 100,
        }  # fmt: skip
        if instance:
            settings["group.instance.id"] = instance
        return _Member(settings, topic, commit_metadata).start()

    @staticmethod
    def _result(futures):
        """The one result, or the error that the broker gave for it."""
        future = next(iter(futures.values())) if isinstance(futures, dict) else futures
        try:
            return future.result(20)
        except KafkaException as error:
            raise _told(error) from error

    def committed(self, group, topic, partition):
        asked = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition)])]
        found = self._result(self.admin.list_consumer_group_offsets(asked)).topic_partitions[0]
        return (found.offset, found.metadata or "") if found.offset >= 0 else (-1, "")

    def commit(self, group, topic, partition, offset, metadata=""):
        consumer = Consumer(self._common() | {"group.id": group})
        try:
            (done,) = consumer.commit(offsets=[TopicPartition(topic, partition, offset, metadata)], asynchronous=False)
            if done.error:
                raise _told(done.error)
        except KafkaException as error:
            raise _told(error) from error
        finally:
            consumer.close()

    def create_topic(self, name, partitions=1, replication=1, configs=None):
        self._result(self.admin.create_topics([NewTopic(name, partitions, replication, config=configs or {})]))

    def delete_topic(self, name):
        self._result(self.admin.delete_topics([name]))

    def create_partitions(self, name, count):
        self._result(self.admin.create_partitions([NewPartitions(name, count)]))

    def list_topics(self):
        return set(self.admin.list_topics(timeout=10).topics)

    def topic_config(self, name):
        found = self._result(self.admin.describe_configs([ConfigResource("topic", name)]))
        return {key: entry.value for key, entry in found.items()}

    def set_config(self, name, key, value):
        entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        self._result(self.admin.incremental_alter_configs([ConfigResource("topic", name, incremental_configs=[entry])]))

    def delete_records(self, topic, partition, before):
        self._result(self.admin.delete_records([TopicPartition(topic, partition, before)]))

    def list_groups(self):
        return {g.group_id for g in self._result(self.admin.list_consumer_groups()).valid}

    def describe_group(self, group):
        found = self._result(self.admin.describe_consumer_groups([group]))
        states = {ConsumerGroupState.STABLE: "Stable", ConsumerGroupState.EMPTY: "Empty", ConsumerGroupState.DEAD: "Dead"}
        return states.get(found.state, str(found.state)), len(found.members)

    def delete_group(self, group):
        self._result(self.admin.delete_consumer_groups([group]))
