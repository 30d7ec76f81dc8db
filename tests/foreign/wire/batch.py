"""Record batches (format v2) built and read byte by byte, wrong ones included."""

import gzip
import struct
import time
from dataclasses import dataclass, field

import crc32c
import lz4.frame
import snappy
import zstandard

from .schema import Reader, varint

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = {"none": NONE, "gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}

LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20

# From base offset to the length field, which counts what comes after itself.
_LOG_OVERHEAD = 12
_HEADER = 61


@dataclass
class Record:
    """One record; `timestamp` and `offset` are filled in when it was read from a batch."""

    key: bytes | None = None
    value: bytes | None = None
    headers: list = field(default_factory=list)
    timestamp: int | None = None
    offset: int | None = None


@dataclass
class Batch:
    """The header of a batch as it was on the wire, and its records."""

    base_offset: int
    leader_epoch: int
    magic: int
    crc_ok: bool
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: list

    @property
    def codec(self):
        return self.attributes & 7

    @property
    def last_offset(self):
        return self.base_offset + self.last_offset_delta


def _compress(codec, data, snappy_raw):
    if codec == GZIP:
        return gzip.compress(data)
    if codec == SNAPPY:
        packed = snappy.compress(data)
        if snappy_raw:
            return packed
        return b"\x82SNAPPY\x00" + struct.pack(">iii", 1, 1, len(packed)) + packed
    if codec == LZ4:
        return lz4.frame.compress(data)
    if codec == ZSTD:
        return zstandard.compress(data)
    return data


def _decompress(codec, data):
    if codec == GZIP:
        return gzip.decompress(data)
    if codec == SNAPPY:
        if not data.startswith(b"\x82SNAPPY\x00"):
            return snappy.decompress(data)
        at, out = 16, b""
        while at < len(data):
            size = struct.unpack_from(">i", data, at)[0]
            out += snappy.decompress(data[at + 4 : at + 4 + size])
            at += 4 + size
        return out
    if codec == LZ4:
        return lz4.frame.decompress(data)
    if codec == ZSTD:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def _bytes_field(data):
    return varint(-1) if data is None else varint(len(data)) + data


def encode_record(record, timestamp_delta, offset_delta):
    """One record with its length in front."""
    body = b"\x00" + varint(timestamp_delta) + varint(offset_delta) + _bytes_field(record.key) + _bytes_field(record.value)
    body += varint(len(record.headers))
    for name, value in record.headers:
        body += varint(len(name)) + name + _bytes_field(value)
    return varint(len(body)) + body


def build_batch(
    records,
    *,
    codec=NONE,
    base_offset=0,
    leader_epoch=-1,
    magic=2,
    attributes=0,
    producer_id=-1,
    producer_epoch=-1,
    base_sequence=-1,
    timestamp=None,
    max_timestamp=None,
    last_offset_delta=None,
    record_count=None,
    offset_deltas=None,
    payload=None,
    crc=None,
    snappy_raw=False,
):
    """A whole batch. Every field that can be wrong can be given; what is not given is right."""
    records = [r if isinstance(r, Record) else Record(value=r) for r in records]
    base_timestamp = int(time.time() * 1000) if timestamp is None else timestamp
    deltas = offset_deltas if offset_deltas is not None else range(len(records))
    stamps = [base_timestamp if r.timestamp is None else r.timestamp for r in records]
    if payload is None:
        payload = b"".join(
            encode_record(record, stamp - base_timestamp, delta)
            for record, stamp, delta in zip(records, stamps, deltas, strict=True)
        )
        payload = _compress(codec, payload, snappy_raw)
    checked = struct.pack(
        ">hiqqqhii",
        attributes | codec,
        len(records) - 1 if last_offset_delta is None else last_offset_delta,
        base_timestamp,
        (max(stamps) if stamps else -1) if max_timestamp is None else max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        len(records) if record_count is None else record_count,
    )
    checked += payload
    crc = crc32c.crc32c(checked) if crc is None else crc
    tail = struct.pack(">ibI", leader_epoch, magic, crc) + checked
    return struct.pack(">qi", base_offset, len(tail)) + tail


def parse_batches(data):
    """All whole batches of a records field; a cut trailing one is left out, as a client leaves it out."""
    data, at, batches = data or b"", 0, []
    while at + _LOG_OVERHEAD <= len(data):
        base_offset, length = struct.unpack_from(">qi", data, at)
        end = at + _LOG_OVERHEAD + length
        if end > len(data):
            break
        batches.append(_parse_one(base_offset, data[at:end]))
        at = end
    return batches


def _parse_one(base_offset, data):
    leader_epoch, magic, crc = struct.unpack_from(">ibI", data, _LOG_OVERHEAD)
    attributes, last_delta, base_ts, max_ts, pid, epoch, seq, count = struct.unpack_from(">hiqqqhii", data, 21)
    reader = Reader(_decompress(attributes & 7, data[_HEADER:]))
    records = []
    for _ in range(count):
        body = Reader(reader.take(reader.varint()))
        body.take(1)
        timestamp = base_ts + body.varint()
        if attributes & LOG_APPEND_TIME:
            timestamp = max_ts
        offset = base_offset + body.varint()
        key, value = _read_bytes(body), _read_bytes(body)
        headers = [(_read_bytes(body), _read_bytes(body)) for _ in range(body.varint())]
        records.append(Record(key, value, headers, timestamp, offset))
    return Batch(
        base_offset, leader_epoch, magic, crc32c.crc32c(data[21:]) == crc, attributes, last_delta, base_ts, max_ts,
        pid, epoch, seq, records,
    )  # fmt: skip


def _read_bytes(reader):
    size = reader.varint()
    return None if size < 0 else reader.take(size)
