"""Puts a load on the running events stack and says whether it keeps what is promised of it.

    make start GROUPS=events
    python -m benchmarks.ingest.run --seconds 600       # 1,000 events a second, then 10,000 a second in bulk
    python -m benchmarks.ingest.run --seconds 600 --rate 300 --bulk-seconds 0 --kill-every 20

Promised: 1,000 events of 1 KB a second for ten minutes, each by a request of its own, p95 under 50 ms; 10,000
a second in bulk; from the request to ClickHouse under 2 s at p95; memory flat; every acknowledged event there
once, by count and by digest, in each store. The second command kills the services and their servers in turn
(`kill -9`; the stack's supervisor starts them again) and asks for that last promise alone.

Requests leave on a fixed schedule whatever the answers do, and a latency counts from the moment at which its
request was due, so that a slow answer is not hidden by the requests that it kept back. A request that fails
is sent again until it is acknowledged. The load runs on the same cores as what it measures; what it took is
printed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import resource
import secrets
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit
from urllib.request import urlopen

import clickhouse_connect
import uvloop

from scripts.stack.cli import memory
from scripts.stack.context import Stack
from scripts.stack.events import event_environment
from scripts.stack.supervise import Supervisor
from services.consumer.settings import Settings as ConsumerSettings
from services.ingest.settings import Settings
from tools.reconcile_events import reconcile

SERVICES = ("ingest", "ingest-relay", "consumer", "kafka", "minio", "postgres", "clickhouse")
_DIGEST = """
    SELECT count(), uniqExact(id), sum(toUInt128(reinterpretAsUInt64(reverse(unhex(concat('0', substring(
        lower(hex(MD5(payload))), 1, 15)))))))
    FROM ingested_data WHERE event_type = {kind:String}
"""
_FRESHNESS = """
    SELECT quantilesExact(0.5, 0.95, 0.99, 1)(toFloat64(inserted_at) - toFloat64(created_at))
    FROM ingested_data WHERE event_type = {kind:String}
"""


def say(text: str) -> None:
    """Print a line of the report."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@dataclass
class Load:
    """What was sent and acknowledged.

    Attributes:
        kind: The event type of this run alone.
        size: Bytes of a payload, about.
        acknowledged: Events.
        digest: Sum of the first 60 bits of MD5(payload) over them.
        again: Requests that had to be sent again.
        seconds: Latency of each request, from when it was due.
    """

    kind: str
    size: int
    acknowledged: int = 0
    digest: int = 0
    again: int = 0
    seconds: list[float] = field(default_factory=list)

    def payload(self, number: int) -> bytes:
        """The payload of an event, different from all others."""
        head = b'{"run":"%s","n":%d,"pad":"' % (self.kind.encode(), number)
        return head + b"x" * (self.size - len(head) - 2) + b'"}'

    def confirm(self, payload: bytes) -> None:
        """Note that an event was acknowledged."""
        self.acknowledged += 1
        self.digest += int(hashlib.md5(payload, usedforsecurity=False).hexdigest()[:15], 16)


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: a request, its answer, the next request.

    Args:
        finished: Called with the connection and the status of each answer; 0 when it was lost.
    """

    def __init__(self, finished: Callable[[Connection, int], None]) -> None:
        self._finished = finished
        self._transport: asyncio.Transport | None = None
        self._read = b""
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        if self.busy:
            self.busy = False
            self._finished(self, 0)

    @property
    def open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes) -> None:
        """Send a request."""
        assert self._transport is not None  # noqa: S101
        self.busy, self._read = True, b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._read[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].partition(b"\r\n")[0])
        if len(self._read) >= end + 4 + length:
            self.busy = False
            self._finished(self, int(head[9:12]))


class Generator:
    """Sends requests on a schedule.

    Args:
        url: The ingest service.
        load: What is sent.
        rate: Events a second.
        seconds: For how long.
        bulk: Events of a request; 1 for single ones.
    """

    def __init__(self, url: str, load: Load, *, rate: float, seconds: float, bulk: int = 1) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._load, self._bulk = load, bulk
        self._every, self._requests = bulk / rate, round(rate * seconds / bulk)
        self._free: deque[Connection] = deque()
        self._due: deque[tuple[int, float]] = deque()
        self._sent: dict[Connection, tuple[int, float, list[bytes]]] = {}
        self._left = self._requests
        self._done = asyncio.Event()

    async def run(self, connections: int = 256) -> None:
        """Send everything, and return when all of it is acknowledged."""
        for _ in range(connections):
            await self._connect()
        began = time.perf_counter()
        for number in range(self._requests):
            due = began + number * self._every
            while (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._due.append((number, due))
            self._pump()
            if number % 20 == 0:
                await asyncio.sleep(0)
        await self._done.wait()

    async def _connect(self) -> None:
        while True:
            try:
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._finished), self._host, self._port
                )
            except OSError:
                await asyncio.sleep(0.1)
            else:
                self._free.append(connection)
                self._pump()
                return

    def _pump(self) -> None:
        while self._due and self._free:
            connection = self._free.popleft()
            if not connection.open:
                self._replace()
                continue
            number, due = self._due.popleft()
            first = number * self._bulk
            payloads = [self._load.payload(first + place) for place in range(self._bulk)]
            self._sent[connection] = (number, due, payloads)
            connection.send(self._request(payloads))

    def _request(self, payloads: list[bytes]) -> bytes:
        kind = self._load.kind.encode()
        events = [b'{"event_type":"%s","payload":%s}' % (kind, payload) for payload in payloads]
        path, body = b"/ingest", events[0]
        if self._bulk > 1:
            path, body = b"/ingest/bulk", b"[" + b",".join(events) + b"]"
        return (
            b"POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % (path, self._host.encode(), self._port, len(body))
        ) + body

    def _finished(self, connection: Connection, status: int) -> None:
        number, due, payloads = self._sent.pop(connection)
        if status == 200:
            self._load.seconds.append(time.perf_counter() - due)
            for payload in payloads:
                self._load.confirm(payload)
            self._left -= 1
            if not self._left:
                self._done.set()
        else:
            self._load.again += 1
            asyncio.get_running_loop().call_later(1 if status == 429 else 0.2, self._again, number, due)
        if connection.open:
            self._free.append(connection)
        else:
            self._replace()
        self._pump()

    def _again(self, number: int, due: float) -> None:
        self._due.append((number, due))
        self._pump()

    def _replace(self) -> None:
        self._replacing = asyncio.ensure_future(self._connect())


class Usage:
    """Memory and processor time of the stack's processes while a load runs.

    Args:
        stack: Whose.
    """

    def __init__(self, stack: Stack) -> None:
        states = Supervisor(stack).states()
        self._pids = {name: states[name]["pid"] for name in SERVICES if states.get(name, {}).get("pid")}
        self._began = {name: _seconds(pid) for name, pid in self._pids.items()}
        self._at = time.monotonic()
        self.samples: list[dict[str, float]] = []

    async def watch(self, every: float) -> None:
        """Take samples until cancelled."""
        while True:
            self.samples.append({name: memory(pid) / 2**20 for name, pid in self._pids.items()})
            await asyncio.sleep(every)

    def report(self) -> None:
        """Print a line for each process."""
        took = time.monotonic() - self._at
        say("  process        cores   memory in MB: after a tenth, half, the end")
        for name, pid in self._pids.items():
            cores = (_seconds(pid) - self._began[name]) / took
            marks = [self.samples[round((len(self.samples) - 1) * part)][name] for part in (0.1, 0.5, 1)]
            say(f"  {name:<14} {cores:>5.2f}   {marks[0]:.0f}, {marks[1]:.0f}, {marks[2]:.0f}")


def _seconds(pid: int) -> float:
    """Processor time of a process and its children."""
    total = 0.0
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        total = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(_seconds(int(child)) for child in (task / "children").read_text().split())
    except OSError:
        return total
    return total


def quantile(values: list[float], part: float) -> float:
    """A quantile of a list."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def latencies(load: Load, seconds: float) -> float:
    """Print what the requests took; their p95 in ms."""
    p50, p95, p99, worst = (quantile(load.seconds, part) * 1000 for part in (0.5, 0.95, 0.99, 1))
    say(
        f"  {load.acknowledged:,} acknowledged in {seconds:.1f} s, {load.acknowledged / seconds:,.0f}/s,"
        f" {len(load.seconds):,} requests, {load.again} sent again"
    )
    say(f"  latency from when due: p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, most {worst:.0f} ms")
    return p95


def depth(url: str) -> dict[str, int]:
    """Events in the outbox by destination; nothing while the service does not answer."""
    try:
        with urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310 - our own address
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    return {
        line.split('"')[1]: int(float(line.rsplit(" ", 1)[1]))
        for line in lines
        if line.startswith("ingest_outbox_events{")
    }


async def drained(url: str, patience: float) -> dict[str, float]:
    """Wait until both carriers have carried everything; seconds by destination."""
    began = time.monotonic()
    took: dict[str, float] = {}
    while time.monotonic() - began < patience:
        for name, waiting in (await asyncio.to_thread(depth, url)).items():
            if not waiting:
                took.setdefault(name, time.monotonic() - began)
        if len(took) == 2:
            return took
        await asyncio.sleep(1)
    return took


async def kill_in_turn(stack: Stack, every: float) -> None:
    """Kill a service or a server every so many seconds, until cancelled."""
    for turn in count():
        await asyncio.sleep(every)
        name = SERVICES[turn % len(SERVICES)]
        state = Supervisor(stack).states().get(name, {})
        if state.get("statename") != "RUNNING":
            say(f"  {name} is {state.get('statename', 'not there')}")
            continue
        say(f"  kill -9 {name}")
        os.kill(state["pid"], signal.SIGKILL)


async def one(
    stack: Stack, name: str, *, rate: float, seconds: float, bulk: int, limit: float, kill_every: float = 0
) -> bool:
    """Put one load on the service and judge it."""
    url, env = stack.settings.ingest_url, event_environment(stack)
    load = Load(f"bench-{secrets.token_hex(4)}", 1000)
    say(f"{name}: {rate:,.0f} events of 1 KB a second, {seconds:.0f} s")
    usage = Usage(stack)
    before = resource.getrusage(resource.RUSAGE_SELF)
    watching = asyncio.create_task(usage.watch(max(seconds / 60, 1)))
    deepest: dict[str, int] = {}

    async def watch_depth() -> None:
        while True:
            for place, waiting in (await asyncio.to_thread(depth, url)).items():
                deepest[place] = max(deepest.get(place, 0), waiting)
            await asyncio.sleep(5)

    around = [watching, asyncio.create_task(watch_depth())]
    if kill_every:
        around.append(asyncio.create_task(kill_in_turn(stack, kill_every)))
    began = time.monotonic()
    await Generator(url, load, rate=rate, seconds=seconds, bulk=bulk).run()
    took = time.monotonic() - began
    for task in around:
        task.cancel()
    after = resource.getrusage(resource.RUSAGE_SELF)
    p95 = latencies(load, took)
    if not kill_every:
        usage.report()
    mine = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    say(f"  {'this load':<14} {mine / took:>5.2f}")
    say(f"  outbox at its deepest: {deepest}")
    rest = await drained(url, 3600)
    say("  carried after the end: " + ", ".join(f"{place} {s:.0f} s" for place, s in rest.items()))

    with clickhouse_connect.get_client(
        host=env["CLICKHOUSE_HOST"],
        port=int(env["CLICKHOUSE_PORT"]),
        username=env["CLICKHOUSE_USER"],
        password=env["CLICKHOUSE_PASSWORD"],
        database=env["CLICKHOUSE_DB"],
        compress=False,
    ) as client:
        for _ in range(600):
            rows, ids, digest = client.query(_DIGEST, {"kind": load.kind}).result_rows[0]
            if ids >= load.acknowledged:
                break
            await asyncio.sleep(0.5)
        fresh = client.query(_FRESHNESS, {"kind": load.kind}).result_rows[0][0]
    whole = (rows, ids, digest) == (load.acknowledged, load.acknowledged, load.digest)
    same = "the same" if digest == load.digest else "ANOTHER"
    say(f"  ClickHouse: {rows:,} rows, {ids:,} ids, digest {same}")
    say("  from request to ClickHouse: p50 {:.2f}, p95 {:.2f}, p99 {:.2f}, most {:.2f} s".format(*fresh))
    if kill_every:
        return whole
    return whole and p95 < limit and load.acknowledged / took >= rate * 0.98 and (fresh[1] < 2 or bulk > 1)


async def everything(options: argparse.Namespace) -> bool:
    """All loads, then the reconciliation of the stores."""
    stack = Stack()
    os.environ.update(event_environment(stack))
    kept = True
    if options.seconds:
        kept &= await one(
            stack,
            "single events",
            rate=options.rate,
            seconds=options.seconds,
            bulk=1,
            limit=50,
            kill_every=options.kill_every,
        )
    if options.bulk_seconds:
        kept &= await one(
            stack,
            f"in bulks of {options.bulk}",
            rate=options.bulk_rate,
            seconds=options.bulk_seconds,
            bulk=options.bulk,
            limit=1000,
        )
    say("the stores, over all events they ever had")
    held, same = await asyncio.to_thread(reconcile, Settings(), ConsumerSettings())
    for store in held:
        say(f"  {store.store:<11}{store.events:>12,} events  digest {store.digest:<28} {store.note}")
    say("kept" if kept and same else "NOT kept")
    return kept and same


def main() -> int:
    """Measure and judge.

    Returns:
        0 when all that is promised is kept.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of single events; 0 for none")
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--bulk-seconds", type=float, default=60, help="of bulks; 0 for none")
    parser.add_argument("--bulk-rate", type=float, default=10_000)
    parser.add_argument("--bulk", type=int, default=500, help="events of a bulk")
    parser.add_argument(
        "--kill-every", type=float, default=0, help="kill one of the services and servers so often, in turn"
    )
    return 0 if uvloop.run(everything(parser.parse_args())) else 1


if __name__ == "__main__":
    raise SystemExit(main())
