"""One socket to a broker: frames, headers, correlation ids. Requests may be pipelined."""

import os
import select
import socket
import struct
from pathlib import Path

from .schema import Reader, messages

CLIENT_ID = "tidelog-wire"


def _jar():
    cache = Path(os.environ.get("TIDELOG_CACHE", Path.home() / ".cache" / "tidelog"))
    return str(next((cache / "java" / "client").glob("kafka-clients-*.jar")))


class Disconnected(Exception):
    """The broker closed the connection."""


class Connection:
    """Sends requests and reads their answers, in the order in which the broker sends them."""

    def __init__(self, address, timeout_s=15.0):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.messages = messages(_jar())
        self.sent = {}
        self.next_id = 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def request_bytes(self, api, version, correlation_id, body, client_id=CLIENT_ID):
        """The frame of one request, length prefix included."""
        request = self.messages[api + "Request"]
        header_version = 2 if request.is_flexible(version) else 1
        header = self.messages["RequestHeader"].encode(
            header_version,
            {
                "RequestApiKey": request.api_key,
                "RequestApiVersion": version,
                "CorrelationId": correlation_id,
                "ClientId": client_id,
            },
        )
        payload = header + (body if isinstance(body, bytes) else request.encode(version, body))
        return struct.pack(">i", len(payload)) + payload

    def send(self, api, version, **body):
        """Sends a request and returns its correlation id; does not wait."""
        correlation_id, self.next_id = self.next_id, self.next_id + 1
        self.sent[correlation_id] = (api, version)
        self.socket.sendall(self.request_bytes(api, version, correlation_id, body))
        return correlation_id

    def receive(self, timeout_s=None):
        """The next answer: (correlation id, body)."""
        frame = self.receive_frame(timeout_s)
        correlation_id = struct.unpack(">i", frame[:4])[0]
        if correlation_id not in self.sent:
            raise AssertionError(f"an answer to correlation id {correlation_id}, which was never sent")
        api, version = self.sent.pop(correlation_id)
        return correlation_id, self.decode(api, version, frame)

    def decode(self, api, version, frame):
        response = self.messages[api + "Response"]
        # The header of an ApiVersions answer is always v0: the client reads it before it knows any version.
        flexible = response.is_flexible(version) and api != "ApiVersions"
        reader = Reader(frame)
        self.messages["ResponseHeader"].decode(1 if flexible else 0, reader)
        body = response.decode(version, reader)
        if reader.rest():
            raise AssertionError(f"{reader.rest()} bytes after the end of {api} v{version}")
        return body

    def call(self, api, version, **body):
        """One request and its answer."""
        correlation_id = self.send(api, version, **body)
        answered, response = self.receive()
        assert answered == correlation_id, f"answer {answered} came before {correlation_id}"
        return response

    def send_raw(self, data):
        self.socket.sendall(data)

    def receive_frame(self, timeout_s=None):
        """The next frame without its length."""
        before = self.socket.gettimeout()
        if timeout_s is not None:
            self.socket.settimeout(timeout_s)
        try:
            size = struct.unpack(">i", self._exactly(4))[0]
            return self._exactly(size)
        finally:
            self.socket.settimeout(before)

    def _exactly(self, size):
        data = bytearray()
        while len(data) < size:
            try:
                piece = self.socket.recv(size - len(data))
            except ConnectionError as error:
                raise Disconnected(str(error)) from error
            if not piece:
                raise Disconnected(f"after {len(data)} of {size} bytes")
            data += piece
        return bytes(data)

    def silent_for(self, seconds):
        """Whether nothing at all, not even a close, arrives for this long."""
        return not select.select([self.socket], [], [], seconds)[0]

    def is_closed_within(self, seconds):
        """Whether the broker closes the connection, without an answer, in this time."""
        try:
            frame = self.receive_frame(seconds)
        except Disconnected:
            return True
        except TimeoutError:
            return False
        raise AssertionError(f"an answer instead of a close: {frame[:64].hex()}")
