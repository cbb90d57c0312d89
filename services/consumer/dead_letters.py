"""Messages that were no events: list them, or put them back once what was wrong with them is fixed.

    python -m services.consumer.dead_letters list
    python -m services.consumer.dead_letters retry          # all of them, into the topic they came from

A message that is put back and is still no event comes to the dead letters again. What was put back is
remembered by the offsets of the group `<group>-retry`, and is not listed again unless `--all` asks for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from services.common.kafka import client_settings
from services.consumer.settings import Settings


class DeadLetters:
    """The dead-letter topic.

    Args:
        settings: Where it is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer = Consumer(
            client_settings(settings.kafka_bootstrap)
            | {"group.id": f"{settings.kafka_group}-retry", "enable.auto.commit": False}
        )
        self._place = TopicPartition(settings.dead, 0)

    def read(self, *, everything: bool = False) -> Iterator[Message]:
        """The letters that are there now, oldest first; those put back already only when asked for.

        Raises:
            KafkaException: The broker does not answer.
        """
        low, high = self._consumer.get_watermark_offsets(self._place, timeout=10)
        done = self._consumer.committed([self._place], timeout=10)[0].offset
        start = low if everything else max(low, done)
        if start >= high:
            return
        self._consumer.assign([TopicPartition(self._settings.dead, 0, start)])
        while True:
            message = self._consumer.poll(10)
            if message is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            if (error := message.error()) is not None:
                raise KafkaException(error)
            yield message
            if (message.offset() or 0) + 1 >= high:
                return

    def retry(self) -> int:
        """Put all letters back into the topic that they came from.

        Returns:
            How many.

        Raises:
            KafkaException: The broker did not take all of them; none is marked as put back.
        """
        failed: list[KafkaException] = []
        producer = Producer(client_settings(self._settings.kafka_bootstrap) | {"enable.idempotence": True})
        last = number = 0
        for message in self.read():
            producer.produce(
                self._settings.kafka_topic,
                message.value(),
                message.key(),
                on_delivery=lambda error, _: failed.append(KafkaException(error)) if error else None,
            )
            producer.poll(0)
            last, number = message.offset() or 0, number + 1
        if producer.flush(30) or failed:
            raise failed[0] if failed else KafkaException("not all were taken in time")
        if number:
            done = TopicPartition(self._settings.dead, 0, last + 1)
            self._consumer.commit(offsets=[done], asynchronous=False)
        return number


def describe(message: Message) -> dict[str, object]:
    """A letter as a line of JSON shows it."""
    headers = dict(message.headers() or {})
    value = message.value()
    _, at = message.timestamp()
    return {
        "offset": message.offset(),
        "from": _text(headers.get("from")),
        "reason": _text(headers.get("reason")),
        "buried_at": datetime.fromtimestamp(at / 1000, UTC),
        "key": _text(message.key()),
        "value": _text(value),
    }


def _text(value: str | bytes | None) -> str | None:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def main() -> int:
    """List dead letters as JSON lines, or put them back."""
    parser = argparse.ArgumentParser(
        prog="python -m services.consumer.dead_letters",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="print them")
    listing.add_argument("--all", action="store_true", help="also those that were put back")
    commands.add_parser("retry", help="put them back into their topic")
    options = parser.parse_args()
    letters = DeadLetters(Settings())
    try:
        if options.command == "list":
            for message in letters.read(everything=options.all):
                sys.stdout.buffer.write(orjson.dumps(describe(message)) + b"\n")
        else:
            sys.stdout.write(f"{letters.retry()} put back\n")
    except KafkaException as error:
        sys.stderr.write(f"dead letters: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
