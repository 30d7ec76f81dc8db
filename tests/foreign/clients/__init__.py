"""One adapter per foreign client, all with the same face, so that one set of scenarios drives every client.

An adapter uses its library the way that library's users do; it adds no retry and hides no error.
"""

from .aiokafka_client import AioKafka
from .base import Ack, Client, ClientError, Rec
from .confluent import Confluent
from .java import Java
from .kafka_python import KafkaPython
from .kafkajs import KafkaJs

ALL = {c.name: c for c in (Confluent, KafkaPython, AioKafka, KafkaJs, Java)}

__all__ = ["ALL", "Ack", "Client", "ClientError", "Rec"]
