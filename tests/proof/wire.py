"""What a run writes durably, seen on the wire: proxies before the stores that name each write, and strike.

A proxy stands between the run's process and one store. It reads what is asked of the store, gives each
durable write a name, and strikes before the write reaches the store, or once the store has said that it is
done and before the process hears of it: the process is killed, the connection is cut, or both stand still
until they are let go. It knows nothing of the code that writes.
"""

from __future__ import annotations

import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

DELAY_SECONDS = 15


class Blow(Enum):
    """What befalls a run at a write."""

    KILLED = "killed"
    """Its processes get SIGKILL, and nothing that they had asked for goes any further."""
    CUT = "cut off"
    """The connection breaks; the processes go on."""
    FROZEN = "frozen"
    """Its processes get SIGSTOP, and the write stands still with them until both are let go."""
    DELAYED = "delayed"
    """The write stands still for a while, and then goes on."""
    SERVER = "a server"
    """The write goes on, to a server that is no longer there or another that is gone."""


@dataclass
class Trap:
    """Collects the names of writes, and strikes at one of them.

    Attributes:
        strike: What is done to the processes that write; called at most once.
        at: The write's name and which one of that name, counted from 1; None to let all pass.
        before: Whether it has not reached the store.
        blow: What befalls the run.
        writes: What was written, in order.
        sprung: Set once it has struck.
        let_go: Lets go what is frozen.
    """

    strike: Callable[[], None] = lambda: None
    at: tuple[str, int] | None = None
    before: bool = True
    blow: Blow = Blow.KILLED
    writes: list[str] = field(default_factory=list)
    sprung: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)
    _seen: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(
        self,
        strike: Callable[[], None],
        at: tuple[str, int] | None,
        *,
        before: bool = True,
        blow: Blow = Blow.KILLED,
    ) -> None:
        """Begins anew."""
        with self._lock:
            self.strike, self.at, self.before, self.blow = strike, at, before, blow
            self.sprung.clear()
            self.let_go.clear()
            self.writes.clear()
            self._seen.clear()

    def asked(self, name: str) -> int:
        """A write is about to be sent on; says which one of its name it is.

        Raises:
            ConnectionError: The process was killed, or this connection cut: the write goes no further.
        """
        with self._lock:
            if self.sprung.is_set() and self.blow is Blow.KILLED:
                raise ConnectionError(name)
            self._seen[name] += 1
            self.writes.append(name)
            number = self._seen[name]
        if self.before:
            self._spring(name, number)
        return number

    def done(self, name: str, number: int) -> None:
        """The store has answered."""
        if not self.before:
            self._spring(name, number)

    def _spring(self, name: str, number: int) -> None:
        with self._lock:
            if self.at != (name, number) or self.sprung.is_set():
                return
            self.strike()
            self.sprung.set()
        if self.blow in (Blow.KILLED, Blow.CUT):
            raise ConnectionError(name)
        if self.blow is Blow.FROZEN:
            self.let_go.wait()
        if self.blow is Blow.DELAYED:
            time.sleep(DELAY_SECONDS)


class Proxy:
    """Listens on a port of its own and talks to one store."""

    def __init__(self, host: str, port: int, trap: Trap) -> None:
        self.upstream, self.trap = (host, port), trap
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self.listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with closing(client), suppress(OSError), socket.create_connection(self.upstream) as server:
            self.talk(client, server)

    def talk(self, client: socket.socket, server: socket.socket) -> None:
        """Carries one connection."""
        raise NotImplementedError


class HttpProxy(Proxy):
    """Requests one after the other, each whole: the runs of a proof are small.

    Args:
        name: Of method, target and body: the write's name, or None where nothing is written.
    """

    def __init__(
        self, host: str, port: int, trap: Trap, name: Callable[[str, str, bytes], str | None]
    ) -> None:
        self.name = name
        super().__init__(host, port, trap)

    def talk(self, client: socket.socket, server: socket.socket) -> None:
        with client.makefile("rb") as asked, server.makefile("rb") as answered:
            # A store ends a connection that nothing is asked on, and the client has to see that it did.
            while server not in select.select([client, server], [], [])[0] and (head := _head(asked)):
                method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
                if re.search(rb"(?im)^expect: 100-continue", head):
                    client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = _body(asked, head)
                write = self.name(method, target, _unchunked(head, body))
                number = self.trap.asked(write) if write else 0
                server.sendall(head + body)
                answer = _head(answered)
                while answer.startswith(b"HTTP/1.1 100"):
                    answer = _head(answered)
                bodyless = method == "HEAD" or answer[9:12] in (b"204", b"304")
                rest = b"" if bodyless else _body(answered, answer, until_closed=True)
                if write:
                    self.trap.done(write, number)
                client.sendall(answer + rest)


def _head(stream: BinaryIO) -> bytes:
    lines = b""
    while line := stream.readline():
        lines += line
        if line == b"\r\n":
            return lines
    return b""


def _body(stream: BinaryIO, head: bytes, *, until_closed: bool = False) -> bytes:
    if found := re.search(rb"(?im)^content-length: *(\d+)", head):
        return stream.read(int(found[1]))
    if re.search(rb"(?im)^transfer-encoding: *chunked", head):
        whole = b""
        while True:
            size = stream.readline()
            rest = stream.read(int(size.split(b";")[0], 16) + 2)
            whole += size + rest
            if int(size.split(b";")[0], 16) == 0:
                return whole
    return stream.read() if until_closed else b""


def _unchunked(head: bytes, body: bytes) -> bytes:
    if not re.search(rb"(?im)^transfer-encoding: *chunked", head):
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        whole, body = whole + body[:length], body[length + 2 :]
    return whole


def s3_write(method: str, target: str, body: bytes) -> str | None:
    """`lake PUT raw/pancake/pancakes/part`, with what differs from run to run left out."""
    parts = urlsplit(target)
    asked = parse_qs(parts.query, keep_blank_values=True)
    if method in ("GET", "HEAD"):
        return None
    verb = {"PUT": "PUT", "DELETE": "DELETE", "POST": "POST"}[method]
    if method == "POST":
        verb = "DELETE" if "delete" in asked else "COMPLETE" if "uploadId" in asked else ""
        if not verb:
            return None  # an upload that begins is nothing yet
    elif "partNumber" in asked:
        return None
    key = unquote(parts.path).partition("/")[2].partition("/")[2]
    key = re.sub(r"/(run|attempt)=[^/]*", "", key)
    key = re.sub(r"part-[^/]*", "part", key)
    key = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27,}|\d{4,}[^/]*", "*", key)
    return f"lake {verb} {key.rstrip('/') or 'objects'}"


def clickhouse_write(method: str, target: str, body: bytes) -> str | None:
    """`clickhouse EXCHANGE fact_pancake_rating`, without the tokens of tables aside."""
    query = parse_qs(urlsplit(target).query).get("query", [""])[0]
    text = f"{query}\n{body[:4000].decode(errors='replace')}".strip()
    found = re.match(
        r"(?is)(?:\s*--[^\n]*\n)*\s*"
        r"(CREATE TABLE|INSERT INTO|ALTER TABLE|EXCHANGE TABLES|DROP TABLE(?: IF EXISTS)?"
        r"|RENAME TABLE|TRUNCATE TABLE|DELETE FROM|OPTIMIZE TABLE)\s+(?:dwh\.)?`?(\w+)`?",
        text,
    )
    if found is None:
        return None
    verb = found[1].upper().removesuffix(" IF EXISTS")
    return f"clickhouse {verb} {re.sub(r'__[0-9a-f]{8}_\d+', ' aside', found[2])}"


_WRITES = re.compile(
    r"(?is)\b(?:INSERT INTO|UPDATE|DELETE FROM|COPY|TRUNCATE|CREATE(?: UNLOGGED)? TABLE(?: IF NOT EXISTS)?"
    r"|DROP TABLE(?: IF EXISTS)?|ALTER TABLE(?: IF EXISTS)?)\s+(?:ONLY\s+)?"
    r"\"?(ods|dwh|etl|staging|digest)\"?\s*\.\s*\"?(\w+)\"?"
)


class PostgresProxy(Proxy):
    """The frontend and backend protocol, version 3: a write is durable once its transaction has committed."""

    def talk(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            (length,) = struct.unpack("!I", _exactly(client, 4))
            start = _exactly(client, length - 4)
            if struct.unpack("!I", start[:4])[0] in (80877103, 80877104):  # asks for TLS, or for GSS
                client.sendall(b"N")
                continue
            server.sendall(struct.pack("!I", length) + start)
            break
        session = _Session(self.trap)
        back = threading.Thread(target=session.answers, args=(server, client), daemon=True)
        back.start()
        try:
            session.questions(client, server)
        finally:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            back.join(5)


class _Session:
    def __init__(self, trap: Trap) -> None:
        self.trap = trap
        self.status = b"I"
        self.written: list[str] = []  # in the transaction that is open
        self.prepared: dict[bytes, str] = {}
        self.waiting: tuple[str, int] | None = None

    def questions(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            kind, body = _message(client)
            text = self._text(kind, body)
            if text is not None:
                self._hears(text)
            server.sendall(kind + struct.pack("!I", len(body) + 4) + body)

    def answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError, ConnectionError):
            while True:
                kind, body = _message(server)
                if kind == b"Z":
                    self.status = body
                    waiting, self.waiting = self.waiting, None
                    if body == b"I":
                        self.written = []
                    if waiting:
                        self.trap.done(*waiting)
                client.sendall(kind + struct.pack("!I", len(body) + 4) + body)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _text(self, kind: bytes, body: bytes) -> str | None:
        if kind == b"Q":
            return body.rstrip(b"\0").decode(errors="replace")
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self.prepared[name] = text.decode(errors="replace")
        elif kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            return self.prepared.get(name)
        return None

    def _hears(self, text: str) -> None:
        if re.match(r"(?i)\s*ROLLBACK", text):
            self.written = []
        found = [f"{schema}.{table}" for schema, table in _WRITES.findall(text)]
        self.written += found
        ends = re.match(r"(?i)\s*(COMMIT|END)\b", text) is not None
        if self.written and (ends or (found and self.status == b"I")):
            tables = {re.sub(r"_?[0-9]{8}t[0-9a-f]{10}", "", one) for one in self.written}
            tables = {re.sub(r"staging\.keys_.*", "staging.keys", one) for one in tables}
            name = f"warehouse COMMIT {', '.join(sorted(tables))}"
            self.waiting = (name, self.trap.asked(name))


def _exactly(stream: socket.socket, length: int) -> bytes:
    whole = b""
    while len(whole) < length:
        some = stream.recv(min(length - len(whole), 1 << 20))
        if not some:
            raise ConnectionError("closed")
        whole += some
    return whole


def _message(stream: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(stream, 5)
    (length,) = struct.unpack("!I", head[1:])
    return head[:1], _exactly(stream, length - 4)
