"""Writers insert, update and delete while runs go on; one run after they stopped makes both sides equal."""

import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from threading import Event, Thread
from typing import Any

import mysql.connector
import psycopg
import pytest

from tests.extract.nights import Nights
from tests.extract.test_changes import differing

pytestmark = [pytest.mark.integration, pytest.mark.spark]

WRITERS = 3
KEYS = 600
"""Their rows, and the first keys that they use; all of them write the same ones."""
NOW = "CURRENT_TIMESTAMP(6)"


def write(connect: Callable[[], Any], number: int, stop: Event, done: list[int]) -> None:
    """Changes rows at random until it is told to stop, in transactions that stay open for a while."""
    rng = random.Random(number)  # noqa: S311
    with closing(connect()) as connection:
        cursor = connection.cursor()
        while not stop.is_set():
            for _ in range(rng.randint(1, 5)):
                key, other = rng.sample(range(1, KEYS + 50), 2)
                statements = rng.choice(
                    [
                        (f"UPDATE things SET note = 'n{rng.random()}', updated_at = {NOW} WHERE id = {key}",),
                        # What no cursor shows.
                        (f"UPDATE things SET amount = {rng.randint(0, 10**6)} WHERE id = {key}",),
                        (f"DELETE FROM things WHERE id = {key}",),
                        # A row that takes the key of one that was there before.
                        (
                            f"DELETE FROM things WHERE id = {other}",
                            f"UPDATE things SET id = {other} WHERE id = {key}",
                        ),
                        (
                            f"INSERT INTO things SELECT {key}, 'new є', 1, NULL, {NOW} FROM "
                            "(SELECT 1 AS one) AS o WHERE NOT EXISTS "
                            f"(SELECT 1 FROM things AS t WHERE t.id = {key})",
                        ),
                    ]
                )
                try:
                    for statement in statements:
                        cursor.execute(statement)
                except (psycopg.Error, mysql.connector.Error):  # another one was quicker, or both waited
                    connection.rollback()
            time.sleep(rng.random() / 20)
            if rng.random() < 0.1:
                connection.rollback()
            else:
                connection.commit()
                done.append(number)


@pytest.mark.parametrize("nights", ["mariadb", "postgres"], indirect=True)
def test_one_run_after_the_writers_stopped_makes_both_sides_equal(
    nights: Nights, another: Callable[[], Any]
) -> None:
    nights.table = replace(nights.table, delete_limit=1.0)
    nights.fill(KEYS)
    nights.run()
    stop = Event()
    done: list[int] = []

    def connect() -> Any:
        connection = another()
        connection.autocommit = False
        if nights.engine == "mysql":
            # They wait for no gaps between each other's keys.
            connection.cursor().execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        return connection

    writers = [Thread(target=write, args=(connect, number, stop, done)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(2):
            written = len(done)
            nights.run(allow_deletes=True)
            assert len(done) > written, "nobody wrote while the run went on"
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    manifest = nights.run(allow_deletes=True)
    assert manifest.census is not None
    assert (manifest.census["left"], manifest.census["came"]) == (0, 0)
    assert differing(nights) == []
