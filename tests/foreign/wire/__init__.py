"""The Kafka protocol by hand: what a test needs to send what no client would, and to see every byte of the answer.

`schema` encodes and decodes any message from Kafka's own definitions, `batch` builds and reads record batches,
`connection` is a plain socket with frames. None of them knows which broker is at the other end.
"""

from .batch import Batch, Record, build_batch, parse_batches
from .connection import Connection, Disconnected
from .errors import Error

__all__ = ["Batch", "Connection", "Disconnected", "Error", "Record", "build_batch", "parse_batches"]
