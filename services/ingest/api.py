"""The routes: events one by one and in bulk, and what the service says of itself."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

import orjson
from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import Counter

from services.common import problems, security
from services.common.problems import Problem
from services.common.security import AccessControl, Principal
from services.ingest import openapi
from services.ingest.events import Event, Sent, check_key, decode, decode_bulk, invalid, make_event
from services.ingest.outbox import Known, Outbox, OutboxDownError, OutboxFullError
from services.ingest.schemas import Schemas
from services.ingest.settings import Settings
from services.ingest.watch import DEPENDENCIES, Watch


@dataclass(frozen=True)
class Desk:
    """What takes events in.

    Attributes:
        outbox: Where they are kept.
        watch: Who knows how much waits.
        schemas: What they have to keep.
        settings: What the service was told.
        taken: Events by what became of them.
    """

    outbox: Outbox
    watch: Watch
    schemas: Schemas
    settings: Settings
    taken: Counter

    def admit(self) -> None:
        """Refuse while too much waits to be carried on.

        Raises:
            Problem: 429.
        """
        if self.watch.deepest() > self.settings.max_outbox_events:
            raise _busy(f"more than {self.settings.max_outbox_events} events wait to be carried on", 5)

    def event(
        self, sent: Sent, where: str, sender: str, now: datetime, *, key: str | None = None, bulk: UUID | None
    ) -> Event:
        """The event of what was sent.

        Raises:
            Problem: 413 when it is too long, 422 when it does not keep its schema.
        """
        if len(bytes(sent.payload)) > self.settings.max_event_bytes:
            raise Problem(413, f"{where}.payload: is longer than {self.settings.max_event_bytes} bytes")
        return make_event(
            sent,
            key=key,
            sender=sender,
            unique=os.urandom(16) if self.settings.identity == "random" else b"",
            version=self.schemas.check(sent, where),
            now=now,
            bulk=bulk,
        )

    async def keep(self, events: Sequence[Event]) -> dict[UUID, Known]:
        """Store events; those that were here before.

        Raises:
            Problem: 429 when too much waits, 503 when the database does not answer.
        """
        try:
            return await self.outbox.add(events)
        except OutboxFullError as error:
            raise _busy("too many events wait for the database", 1) from error
        except OutboxDownError as error:
            raise Problem(
                503,
                f"{error}: send it again, it is stored once",
                code="outbox_unavailable",
                headers={"Retry-After": "1"},
            ) from error


def routes(desk: Desk, access: AccessControl) -> APIRouter:
    """The routes that take events in."""
    router = APIRouter(tags=["events"])
    Writer = Annotated[Principal, Depends(access.require(security.EVENTS))]

    @router.post("/ingest", response_class=Response, **openapi.INGEST)
    async def ingest(request: Request, principal: Writer) -> Response:
        """Take one event in. When this is answered with 200, the event is on disk."""
        desk.admit()
        _media_type(request, "application/json")
        key = request.headers.get("idempotency-key")
        if key is not None:
            check_key(key, "header.idempotency-key")
        sent = decode(await request.body())
        if key is not None and sent.idempotency_key not in (None, key):
            raise invalid("body.idempotency_key", "the header Idempotency-Key says otherwise")
        event = desk.event(sent, "body", principal.identity, datetime.now(UTC), key=key, bulk=None)
        known = (await desk.keep([event])).get(event.id)
        if known is not None and known.content != event.content:
            desk.taken.labels("conflict").inc()
            raise Problem(
                409,
                "the idempotency key was used for another event: take a new one",
                code="idempotency_conflict",
            )
        desk.taken.labels("duplicate" if known else "accepted").inc()
        return _answer(_receipt(event, known))

    @router.post("/ingest/bulk", response_class=Response, **openapi.BULK)
    async def ingest_bulk(request: Request, principal: Writer) -> Response:
        """Take many events in, in one transaction. If one of them is wrong, none is stored."""
        desk.admit()
        media_type = _media_type(request, "application/json", "application/x-ndjson")
        sent = decode_bulk(await request.body(), media_type, desk.settings.max_bulk_events)
        now, bulk = datetime.now(UTC), uuid4()
        events = [
            desk.event(item, f"body.{place}", principal.identity, now, bulk=bulk)
            for place, item in enumerate(sent)
        ]
        first: dict[UUID, Event] = {}
        for event in events:
            first.setdefault(event.id, event)
        known = await desk.keep(list(first.values()))
        receipts: list[dict[str, Any]] = []
        conflicts: list[dict[str, str]] = []
        for place, event in enumerate(events):
            before = known.get(event.id)
            if before is None and first[event.id] is not event:
                before = Known(first[event.id].content, now)
            if before is not None and before.content != event.content:
                conflicts.append(
                    {"where": f"body.{place}.idempotency_key", "what": "was used for another event"}
                )
            else:
                receipts.append(_receipt(event, before))
        duplicates = sum(receipt["duplicate"] for receipt in receipts)
        desk.taken.labels("duplicate").inc(duplicates)
        desk.taken.labels("accepted").inc(len(receipts) - duplicates)
        desk.taken.labels("conflict").inc(len(conflicts))
        if conflicts:
            raise Problem(
                409,
                f"{len(conflicts)} idempotency keys were used for other events; the other events are stored",
                code="idempotency_conflict",
                errors=conflicts,
            )
        return _answer({"accepted": len(receipts) - duplicates, "duplicates": duplicates, "events": receipts})

    @router.get("/schemas", responses=problems.responses(401, 403, 429))
    async def schemas(_: Writer) -> dict[str, list[int]]:
        """The versions of each event type's schema."""
        return desk.schemas.listing()

    return router


def service_routes(watch: Watch, settings: Settings) -> APIRouter:
    """The routes that tell of the service itself."""
    router = APIRouter(tags=["service"])

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Whether the service runs; what it depends on is under /ready."""
        return {"status": "healthy", "service": "ingest"}

    @router.get("/ready", response_class=Response, **openapi.READY)
    async def ready() -> Response:
        """Whether events are taken in: PostgreSQL must answer; the rest may be away for a while."""
        status = {name: watch.wrong.get(name, "ok") for name in DEPENDENCIES}
        full = watch.deepest() > settings.max_outbox_events
        well = status["postgres"] == "ok" and not full
        body = {"status": "ready" if well else "not ready", "dependencies": status, "outbox": watch.depth}
        return _answer(body, 200 if well else 503)

    return router


def _answer(body: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")


def _receipt(event: Event, known: Known | None) -> dict[str, Any]:
    return {
        "id": str(event.id),
        "duplicate": known is not None,
        "received_at": known.received_at.astimezone(UTC) if known else event.received_at,
    }


def _busy(why: str, seconds: int) -> Problem:
    return Problem(
        429, f"{why}: try again in {seconds} s", code="busy", headers={"Retry-After": str(seconds)}
    )


def _media_type(request: Request, *taken: str) -> str:
    """The body's media type.

    Raises:
        Problem: 415, unless it is one of those taken.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in taken:
        raise Problem(415, f"the body's Content-Type is {given or 'missing'}: send {' or '.join(taken)}")
    return given
