"""Encodes and decodes every Kafka message from the definitions inside the Java client's jar.

The definitions are Kafka's own (`common/message/*.json`), so neither the broker under test nor any client under
test has a say in what a message looks like. Messages are plain dictionaries with Kafka's field names; a field
left out takes its default, a field that the version does not have is refused.
"""

import json
import re
import struct
import uuid
import zipfile
from functools import cache

ZERO_UUID = uuid.UUID(int=0)

_FIXED = {
    "bool": ("?", False),
    "int8": ("b", 0),
    "int16": ("h", 0),
    "uint16": ("H", 0),
    "int32": ("i", 0),
    "uint32": ("I", 0),
    "int64": ("q", 0),
    "float64": ("d", 0.0),
}


def in_range(versions, version):
    """Whether `version` is in a range such as "3", "0-4", "2+" or "none"."""
    if not versions or versions == "none":
        return False
    low, _, high = versions.partition("-")
    if low.endswith("+"):
        return version >= int(low[:-1])
    return int(low) <= version <= int(high or low)


class Reader:
    """Walks over received bytes; running past the end is an error, never a silent zero."""

    def __init__(self, data):
        self.data = memoryview(data)
        self.at = 0

    def take(self, size):
        if size < 0 or self.at + size > len(self.data):
            raise ValueError(f"message ends early: {size} bytes wanted at {self.at} of {len(self.data)}")
        piece = self.data[self.at : self.at + size]
        self.at += size
        return bytes(piece)

    def unpack(self, code):
        return struct.unpack(">" + code, self.take(struct.calcsize(">" + code)))[0]

    def uvarint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
            shift += 7

    def varint(self):
        value = self.uvarint()
        return (value >> 1) ^ -(value & 1)

    def rest(self):
        return len(self.data) - self.at


def uvarint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint(value):
    return uvarint(value << 1 if value >= 0 else (-value << 1) - 1)


class Message:
    """One request, response, header or data definition."""

    def __init__(self, definition):
        self.name = definition["name"]
        self.api_key = definition.get("apiKey")
        self.valid = definition["validVersions"]
        self.flexible = definition.get("flexibleVersions", "none")
        self.fields = definition.get("fields", [])
        self.structs = {s["name"]: s["fields"] for s in definition.get("commonStructs", [])}

    def is_flexible(self, version):
        return in_range(self.flexible, version)

    def encode(self, version, values):
        return self._encode_struct(self.fields, version, values, self.name)

    def decode(self, version, data):
        reader = data if isinstance(data, Reader) else Reader(data)
        return self._decode_struct(self.fields, version, reader)

    # ---- encoding

    def _encode_struct(self, fields, version, values, where):
        known = {f["name"] for f in fields if in_range(f["versions"], version)}
        if extra := set(values) - known:
            raise KeyError(f"{where} v{version} has no {sorted(extra)}, only {sorted(known)}")
        plain, tagged = bytearray(), []
        for field in fields:
            if field["name"] not in known:
                continue
            value = values.get(field["name"], self._default(field, version))
            if in_range(field.get("taggedVersions"), version):
                if field["name"] in values:
                    tagged.append((field["tag"], self._encode(field, version, value)))
            else:
                plain += self._encode(field, version, value)
        if self.is_flexible(version):
            plain += uvarint(len(tagged))
            for tag, data in sorted(tagged):
                plain += uvarint(tag) + uvarint(len(data)) + data
        return bytes(plain)

    def _default(self, field, version):
        kind = field["type"]
        if kind.startswith("[]"):
            nothing = None if field.get("default") == "null" else []
            return nothing
        default = field.get("default")
        if default == "null":
            return None
        if kind in _FIXED:
            if default is None:
                return _FIXED[kind][1]
            if kind == "bool":
                return str(default).lower() == "true"
            return float(default) if kind == "float64" else int(str(default), 0)
        if kind == "string":
            return default or ""
        if kind in ("bytes", "records"):
            return None if in_range(field.get("nullableVersions"), version) else b""
        if kind == "uuid":
            return ZERO_UUID
        return {}

    def _encode(self, field, version, value):
        kind, compact = field["type"], self.is_flexible(version)
        nullable = in_range(field.get("nullableVersions"), version)
        if value is None and not nullable:
            raise ValueError(f"{field['name']} v{version} may not be null")
        if kind.startswith("[]"):
            if value is None:
                return uvarint(0) if compact else struct.pack(">i", -1)
            items = b"".join(self._encode_item(field, kind[2:], version, item) for item in value)
            return (uvarint(len(value) + 1) if compact else struct.pack(">i", len(value))) + items
        if nullable and not self._is_scalar(kind):
            return b"\xff" if value is None else b"\x01" + self._encode_item(field, kind, version, value)
        return self._encode_item(field, kind, version, value)

    @staticmethod
    def _is_scalar(kind):
        return kind in _FIXED or kind in ("string", "bytes", "records", "uuid")

    def _encode_item(self, field, kind, version, value):
        compact = self.is_flexible(version) and field.get("flexibleVersions") != "none"
        if kind in _FIXED:
            return struct.pack(">" + _FIXED[kind][0], value)
        if kind == "uuid":
            return value.bytes
        if kind == "string":
            if value is None:
                return uvarint(0) if compact else struct.pack(">h", -1)
            data = value.encode("utf-8", "surrogateescape")
            return (uvarint(len(data) + 1) if compact else struct.pack(">h", len(data))) + data
        if kind in ("bytes", "records"):
            if value is None:
                return uvarint(0) if compact else struct.pack(">i", -1)
            return (uvarint(len(value) + 1) if compact else struct.pack(">i", len(value))) + value
        return self._encode_struct(self._fields_of(field, kind), version, value, f"{self.name}.{kind}")

    def _fields_of(self, field, kind):
        return field["fields"] if "fields" in field else self.structs[kind]

    # ---- decoding

    def _decode_struct(self, fields, version, reader):
        values, tags = {}, {}
        for field in fields:
            if not in_range(field["versions"], version):
                continue
            if in_range(field.get("taggedVersions"), version):
                tags[field["tag"]] = field
            else:
                values[field["name"]] = self._decode(field, version, reader)
        if self.is_flexible(version):
            for _ in range(reader.uvarint()):
                tag, data = reader.uvarint(), Reader(reader.take(reader.uvarint()))
                if tag in tags:
                    values[tags[tag]["name"]] = self._decode(tags[tag], version, data)
        return values

    def _decode(self, field, version, reader):
        kind, compact = field["type"], self.is_flexible(version)
        if kind.startswith("[]"):
            count = reader.uvarint() - 1 if compact else reader.unpack("i")
            if count < 0:
                return None
            return [self._decode_item(field, kind[2:], version, reader) for _ in range(count)]
        if in_range(field.get("nullableVersions"), version) and not self._is_scalar(kind):
            if reader.unpack("b") < 0:
                return None
        return self._decode_item(field, kind, version, reader)

    def _decode_item(self, field, kind, version, reader):
        compact = self.is_flexible(version) and field.get("flexibleVersions") != "none"
        if kind in _FIXED:
            return reader.unpack(_FIXED[kind][0])
        if kind == "uuid":
            return uuid.UUID(bytes=reader.take(16))
        if kind == "string":
            size = reader.uvarint() - 1 if compact else reader.unpack("h")
            return None if size < 0 else reader.take(size).decode("utf-8", "surrogateescape")
        if kind in ("bytes", "records"):
            size = reader.uvarint() - 1 if compact else reader.unpack("i")
            return None if size < 0 else reader.take(size)
        return self._decode_struct(self._fields_of(field, kind), version, reader)


class Messages:
    """All definitions of one jar, by name."""

    def __init__(self, jar):
        self._by_name = {}
        self._keys = {}
        with zipfile.ZipFile(jar) as archive:
            for entry in archive.namelist():
                if entry.startswith("common/message/") and entry.endswith(".json"):
                    text = re.sub(r"(?m)^\s*//.*$", "", archive.read(entry).decode())
                    message = Message(json.loads(text))
                    self._by_name[message.name] = message
                    if message.name.endswith("Request"):
                        self._keys[message.name.removesuffix("Request")] = message.api_key

    def __getitem__(self, name):
        return self._by_name[name]

    def api_key(self, api):
        return self._keys[api]

    def api_names(self):
        return {key: name for name, key in self._keys.items()}


@cache
def messages(jar):
    """The definitions of `jar`, read once."""
    return Messages(jar)
