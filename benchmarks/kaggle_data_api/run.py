"""Measures the reads of kaggle-data-api on this machine and says whether it keeps what is promised of it.

    python -m benchmarks.kaggle_data_api.run --seconds 60

takes a PostgreSQL of its own, with the stack's options, in `.local/bench/kaggle_data_api`, and fills it with
100,000 datasets when it does not hold them yet. Promised: 1,000 reads a second at p95 under 30 ms, no error.
Of ten reads five ask for one dataset, three for a page of 20 somewhere in the list, two search.

Requests leave on a fixed schedule whatever the answers do, and a latency counts from the moment at which its
request was due. The load runs on the same cores as what it measures; what each took is printed, and how busy
the machine was with others.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import psycopg
import uvloop

from benchmarks.ingest.run import Connection, quantile, say
from benchmarks.pipeline_info.run import busy, seconds_of, seconds_of_store
from services.kaggle_data_api.migrate import migrations
from services.kaggle_data_api.models import Cursor
from services.kaggle_data_api.settings import Settings
from tests.services.pipeline_info.conftest import Postgres

PORT = 8793
DATA = Path(__file__).parents[2] / ".local" / "bench" / "kaggle_data_api"
WORDS = [
    *("wine", "beer", "orders", "sales", "brazil", "titanic", "iris", "weather", "covid", "stocks"),
    *("movies", "music", "football", "maps", "text"),
]
_FILL = """
    INSERT INTO datasets (name, description, source_url, ref, version, licence, files, total_bytes)
    SELECT initcap(words[1 + n %% 15]) || ' ' || words[1 + n / 15 %% 15] || ' ' || n,
        repeat('What this dataset of ' || words[1 + n / 7 %% 15] || ' holds, from where, since when. ', 5),
        'https://www.kaggle.com/datasets/owner' || n %% 5000 || '/dataset-' || n,
        'owner' || n %% 5000 || '/dataset-' || n, 1 + n %% 9, 'CC0-1.0',
        jsonb_build_array(
            jsonb_build_object('name', 'data.csv', 'bytes', n * 100, 'sha256', repeat('0a', 32))
        ),
        n * 100
    FROM generate_series(1, %s) AS n, (SELECT %s::text[] AS words)
"""


class Reads:
    """Sends reads on a schedule.

    Args:
        datasets: How many there are.
        rate: Requests a second.
        seconds: For how long.
        names: Names of some datasets by id, for places in the list.
    """

    def __init__(self, datasets: int, *, rate: float, seconds: float, names: list[tuple[int, str]]) -> None:
        self._every, self._requests = 1 / rate, round(rate * seconds)
        self._datasets, self._names = datasets, names
        self._free: deque[Connection] = deque()
        self._due: deque[tuple[str, bytes, float]] = deque()
        self._sent: dict[Connection, tuple[str, float]] = {}
        self._random = random.Random(1)  # noqa: S311 - a load, the same each time
        self._done = asyncio.Event()
        self.statuses: Counter[int] = Counter()
        self.seconds: dict[str, list[float]] = {"one": [], "page": [], "search": []}

    async def run(self, connections: int = 64) -> float:
        """Send everything; the seconds until all of it is answered."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(
                lambda: Connection(self._finished), "127.0.0.1", PORT
            )
            self._free.append(connection)
        began = time.perf_counter()
        for number in range(self._requests):
            due = began + number * self._every
            while (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._due.append((*self._next(), due))
            self._pump()
        await self._done.wait()
        return time.perf_counter() - began

    def _next(self) -> tuple[str, bytes]:
        kind = self._random.choice(("one",) * 5 + ("page",) * 3 + ("search",) * 2)
        if kind == "one":
            path = f"/datasets/{self._random.randint(1, self._datasets)}"
        elif kind == "page":
            number, name = self._random.choice(self._names)
            path = f"/datasets?limit=20&cursor={Cursor(name, number).encode()}"
        else:
            words = f"{self._random.choice(WORDS)} {self._random.randint(1, self._datasets)}"
            path = f"/datasets?limit=20&q={quote(words)}"
        return kind, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\n\r\n".encode()

    def _pump(self) -> None:
        while self._due and self._free:
            connection = self._free.popleft()
            kind, request, due = self._due.popleft()
            self._sent[connection] = (kind, due)
            connection.send(request)

    def _finished(self, connection: Connection, status: int) -> None:
        kind, due = self._sent.pop(connection)
        self.statuses[status] += 1
        self.seconds[kind].append(time.perf_counter() - due)
        if connection.open:
            self._free.append(connection)
        if sum(self.statuses.values()) == self._requests:
            self._done.set()
        self._pump()


@contextmanager
def store(datasets: int) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """A PostgreSQL with so many datasets; its process, and some of them."""
    DATA.mkdir(parents=True, exist_ok=True)
    DATA.chmod(0o755)
    server = Postgres(DATA, "shared_buffers=256MB", "maintenance_work_mem=128MB", "max_wal_size=2GB")
    server.start()
    url = f"postgresql://postgres:x@127.0.0.1:{server.port}/postgres"
    os.environ |= {"DATABASE_URL": url, "KAGGLE_DATA_API_RATE_PER_SECOND": "0"}
    try:
        migrations(Settings()).upgrade()
        with psycopg.connect(url, autocommit=True) as connection:
            (there,) = connection.execute("SELECT count(*) FROM datasets").fetchone() or (0,)
            if there != datasets:
                connection.execute("TRUNCATE datasets RESTART IDENTITY")
                connection.execute(_FILL, [datasets, WORDS])
                connection.execute("VACUUM (ANALYZE) datasets")
            names = connection.execute("SELECT id, name FROM datasets WHERE id % 97 = 0").fetchall()
        assert server.process is not None  # noqa: S101 - it was started
        yield server.process.pid, names
    finally:
        server.stop()


@contextmanager
def service() -> Iterator[int]:
    """The service over the store of the environment; its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services.kaggle_data_api", "--port", str(PORT)], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            try:
                urlopen(f"http://127.0.0.1:{PORT}/ready").close()
                break
            except OSError:
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--datasets", type=int, default=100_000)
    options = parser.parse_args()
    with store(options.datasets) as (server, names), service() as api:
        # Connections, plans, caches.
        uvloop.run(Reads(options.datasets, rate=200, seconds=3, names=names).run())
        at, store_at, mine_at, all_at = seconds_of(api), seconds_of_store(server), time.process_time(), busy()
        reads = Reads(options.datasets, rate=options.rate, seconds=options.seconds, names=names)
        took = uvloop.run(reads.run())
        ours, database = seconds_of(api) - at, seconds_of_store(server) - store_at
        mine, everything = time.process_time() - mine_at, busy() - all_at
    every = [seconds for kind in reads.seconds.values() for seconds in kind]
    for kind, found in {**reads.seconds, "all": every}.items():
        marks = ", ".join(
            f"p{part * 100:.0f} {quantile(found, part) * 1000:.1f}" for part in (0.5, 0.95, 0.99)
        )
        say(f"{kind:<7} {len(found):>7,} reads: {marks}, most {max(found) * 1000:.0f} ms")
    rest = everything - ours - database - mine
    say(f"{len(every) / took:,.0f} reads a second of {options.rate:,.0f}; answers {dict(reads.statuses)}")
    say(
        f"cores: service {ours / took:.2f}, PostgreSQL {database / took:.2f}, the load {mine / took:.2f},"
        f" others {rest / took:.2f} of {os.cpu_count()}"
    )
    p95 = quantile(every, 0.95) * 1000
    kept = p95 < 30 and set(reads.statuses) == {200} and len(every) / took > options.rate * 0.99
    say(f"{options.rate:,.0f} reads a second at p95 under 30 ms, no error: {'kept' if kept else 'NOT KEPT'}")
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
