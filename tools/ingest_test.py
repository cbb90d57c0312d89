"""Sends an event through the running platform and follows it (`make ingest`).

The event is posted twice, as a client does that did not hear the answer; it has to be in ClickHouse once.
Natively and on Compose alike; INGEST_URL and CLICKHOUSE_URL say where, if not at the usual ports;
CLICKHOUSE_PASSWORD is ClickHouse's. Needs nothing but Python.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

_HOST = "127.0.0.1"
INGEST = os.environ.get("INGEST_URL") or (
    f"http://{os.environ.get('INGEST_HOST', _HOST)}:{os.environ.get('INGEST_PORT', '8000')}"
)
CLICKHOUSE = os.environ.get("CLICKHOUSE_URL") or (
    f"http://{os.environ.get('CLICKHOUSE_HOST', _HOST)}:{os.environ.get('CLICKHOUSE_HTTP_PORT', '8123')}"
)
LOGIN = {
    "X_ClickHouse_User": os.environ.get("CLICKHOUSE_USER", "default"),
    "X_ClickHouse_Key": os.environ.get("CLICKHOUSE_PASSWORD", ""),
}
DATABASE = os.environ.get("EVENTS_CLICKHOUSE_DB", "wotr")
PATIENCE = 30.0


def ask(url: str, body: bytes | None = None, **headers: str) -> bytes:
    """Ask a server, and say in one line what is wrong when it does not answer well."""
    request = urllib.request.Request(url, body, {k.replace("_", "-"): v for k, v in headers.items()})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http, from the settings
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{url}: {error.code}: {error.read()[:300].decode(errors='replace')}") from error
    except OSError as error:
        raise SystemExit(f"{url}: does not answer ({error}): is the stack up?") from error


def main() -> int:
    """Post, post again, look.

    Returns:
        0 when the event is where it has to be, once.
    """
    payload = {"example": "hello", "value": 123, "mark": uuid.uuid4().hex}
    body = json.dumps({"payload": payload}).encode()
    started = time.monotonic()
    first = json.loads(ask(f"{INGEST}/ingest", body, Content_Type="application/json"))
    print(f"accepted   {first['id']}  {(time.monotonic() - started) * 1000:.0f} ms")
    again = json.loads(ask(f"{INGEST}/ingest", body, Content_Type="application/json"))
    if again != first | {"duplicate": True}:
        print(f"sent again, it was not taken for the same event: {again}")
        return 1
    print("sent again, and known")

    query = (
        f"SELECT count(), any(payload) FROM {DATABASE}.ingested_data WHERE id = '{first['id']}' FORMAT TSVRaw"
    )
    count, found = b"0", b""
    while time.monotonic() - started < PATIENCE and count == b"0":
        count, _, found = ask(f"{CLICKHOUSE}/", query.encode(), **LOGIN).rstrip(b"\n").partition(b"\t")
        time.sleep(0.1)
    if count != b"1" or json.loads(found) != payload:
        print(f"in ClickHouse after {PATIENCE:.0f} s: {count.decode()} times, {found.decode()!r}")
        return 1
    print(f"ClickHouse has it once, after {time.monotonic() - started:.2f} s")

    waiting = {"raw": -1}
    while time.monotonic() - started < PATIENCE and any(waiting.values()):
        waiting = json.loads(ask(f"{INGEST}/ready"))["outbox"]
        time.sleep(0.2)
    if any(waiting.values()):
        print(f"the outbox still holds events after {PATIENCE:.0f} s: {waiting}")
        return 1
    print(f"MinIO has it at raw/{first['id']}.json: the outbox is empty")
    return 0


if __name__ == "__main__":
    sys.exit(main())
