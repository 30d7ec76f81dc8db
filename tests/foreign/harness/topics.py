"""Creates topics without any client library, so that no client is tested by its own means."""

from wire import Connection, Error


class Topics:
    """Creates and deletes topics over one raw connection."""

    def __init__(self, address):
        self.connection = Connection(address, timeout_s=30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def create(self, name, partitions=1, **configs):
        """Creates a topic, waits until every partition has a leader, returns its name.

        Config names are given with underscores for dots.
        """
        configs = [{"Name": key.replace("_", "."), "Value": str(value)} for key, value in configs.items()]
        reply = self.connection.call(
            "CreateTopics", 7,
            Topics=[{"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1, "Configs": configs}],
            timeoutMs=15000,
        )  # fmt: skip
        result = reply["Topics"][0]
        assert result["ErrorCode"] == Error.NONE, result
        self.wait_until_led(name, partitions)
        return name

    def wait_until_led(self, name, partitions=1):
        """Waits until the leader of every partition answers: metadata alone may run ahead of it."""
        asked = [{"PartitionIndex": p, "Timestamp": -1} for p in range(partitions)]
        for _ in range(200):
            reply = self.connection.call(
                "ListOffsets", 7, ReplicaId=-1, IsolationLevel=0, Topics=[{"Name": name, "Partitions": asked}]
            )
            answers = reply["Topics"][0]["Partitions"]
            if all(p["ErrorCode"] == Error.NONE for p in answers):
                return
            self.connection.silent_for(0.02)
        raise AssertionError(f"no leader for {name}: {answers}")

    def metadata(self, name):
        return self.connection.call("Metadata", 12, Topics=[{"Name": name}], AllowAutoTopicCreation=False)["Topics"][0]

    def topic_id(self, name):
        return self.metadata(name)["TopicId"]
