"""How much one request, and all of them together, may cost."""

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """Bounds; each that is passed ends the request with ClickHouse's own error.

    Attributes:
        memory: Bytes of the whole process's engine.
        query_memory: Bytes of one query.
        query_seconds: Time of one query.
        result_rows: Rows of one result.
        result_bytes: Bytes of one result.
        statement_bytes: Bytes of a statement, decompressed; rows that an INSERT streams do not count.
        insert_bytes: Bytes of the rows of one INSERT, decompressed.
        queries: Queries at once.
        sessions: Sessions kept at once; the one idle for longest makes room.
        session_seconds: How long a session is kept idle, unless it asks for less or more.
        body_seconds: Time without a byte of an expected body.
        send_seconds: Time without the client taking a byte of a result.
        connections: Open connections.
    """

    memory: int = 4 * GIB
    query_memory: int = 2 * GIB
    query_seconds: int = 600
    result_rows: int = 10_000_000
    result_bytes: int = 512 * MIB
    statement_bytes: int = 4 * MIB
    insert_bytes: int = 2 * GIB
    queries: int = 32
    sessions: int = 100
    session_seconds: float = 300
    body_seconds: float = 30
    send_seconds: float = 30
    connections: int = 500
