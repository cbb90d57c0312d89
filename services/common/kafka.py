"""What the services of events say to Kafka alike: clients' settings, and the topics they need."""

from __future__ import annotations

import logging

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

log = logging.getLogger(__name__)


def client_settings(bootstrap: str) -> dict[str, str | int | float | bool]:
    """Settings of every client: how fast it finds a broker again that was away."""
    return {
        "bootstrap.servers": bootstrap,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1000,
        "socket.keepalive.enable": True,
    }


def ensure_topics(bootstrap: str, topics: dict[str, int], *, seconds: float = 10) -> None:
    """Make the topics that are not there yet.

    Args:
        bootstrap: The broker's address.
        topics: Partitions by topic; a topic that exists keeps its own.
        seconds: How long to wait for the broker.

    Raises:
        KafkaException: The broker does not answer, or refuses.
    """
    admin = AdminClient(client_settings(bootstrap))
    there = admin.list_topics(timeout=seconds).topics
    # Replication -1: as many as the cluster says.
    new = [NewTopic(name, partitions, -1) for name, partitions in topics.items() if name not in there]
    for name, made in admin.create_topics(new, request_timeout=seconds).items() if new else ():
        try:
            made.result()
            log.info("topic %s made with %d partitions", name, topics[name])
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
