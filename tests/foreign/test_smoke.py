"""That the harness itself works: a broker starts, answers, and a batch comes back as it was sent."""

from wire import Record, build_batch, parse_batches


def test_a_batch_comes_back_byte_for_byte(wire, topic):
    records = [Record(b"k", b"v", [(b"h", b"1"), (b"h", b"2"), (b"n", None)], 1000), Record(None, None, [], 2000)]
    batch = build_batch(records, timestamp=1000)
    produced = wire.call(
        "Produce", 9, Acks=-1, TimeoutMs=5000,
        TopicData=[{"Name": topic, "PartitionData": [{"Index": 0, "Records": batch}]}],
    )  # fmt: skip
    assert produced["Responses"][0]["PartitionResponses"][0]["ErrorCode"] == 0
    fetched = wire.call(
        "Fetch", 12, MaxWaitMs=0, MinBytes=1,
        Topics=[{"Topic": topic, "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}]}],
    )  # fmt: skip
    partition = fetched["Responses"][0]["Partitions"][0]
    assert partition["HighWatermark"] == 2
    # All but the leader epoch, which the broker stamps, is as it was sent.
    stored = partition["Records"]
    assert stored[:12] == batch[:12] and stored[16:] == batch[16:]
    (parsed,) = parse_batches(stored)
    assert parsed.crc_ok
    assert [(r.key, r.value, r.headers, r.timestamp) for r in parsed.records] == [
        (r.key, r.value, r.headers, r.timestamp) for r in records
    ]
