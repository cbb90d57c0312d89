"""The routes."""

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, Field

from services.common import problems, security
from services.common.problems import Problem
from services.common.security import AccessControl, Principal
from services.common.strict import StrictRoute
from services.kaggle_data_api.models import (
    MAX_ID,
    BadCursorError,
    Cursor,
    Dataset,
    DatasetPage,
    DatasetRef,
    DatasetWrite,
)
from services.kaggle_data_api.store import DatasetStore, Row, TakenError

SERVICE = "kaggle-data-api"
_ACCESS = problems.responses(401, 403, 429, 503)
_BODY = problems.responses(400, 408, 409, 413, 415, 422)

DatasetId = Annotated[int, Path(ge=1, le=MAX_ID)]


class PageQuery(BaseModel):
    """Which datasets, and which page of them."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=500, description="How many at most.")] = 50
    cursor: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=2048,
                pattern=r"^[A-Za-z0-9_-]+$",
                description="The `next_cursor` of the page before.",
            ),
        ]
        | None
    ) = None
    q: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=200,
                pattern=r"^[^\x00]*$",
                description="Words of the name or the description; of the last one its beginning.",
            ),
        ]
        | None
    ) = None
    ref: DatasetRef | None = None


class Health(BaseModel):
    """The service lives."""

    status: Literal["healthy"] = "healthy"
    service: Literal["kaggle-data-api"] = "kaggle-data-api"


class Readiness(BaseModel):
    """The database answers and has the schema."""

    status: Literal["ready"] = "ready"
    service: Literal["kaggle-data-api"] = "kaggle-data-api"


def routes(store: DatasetStore, access: AccessControl, changes: Counter) -> APIRouter:
    """The routes over a store.

    Args:
        store: Where datasets are.
        access: Who may do what.
        changes: Counts them by action.
    """
    router = APIRouter(route_class=StrictRoute)
    Reader = Annotated[Principal, Depends(access.require(security.READ))]
    Writer = Annotated[Principal, Depends(access.require(security.WRITE))]

    def changed(principal: Principal, action: str, number: int) -> None:
        changes.labels(action).inc()
        access.audit(principal, action, [{"id": number}])

    @router.get("/health", tags=["service"])
    async def health() -> Health:
        """Whether the service lives; does not ask the database."""
        return Health()

    @router.get("/ready", tags=["service"], responses=problems.responses(503))
    async def ready() -> Readiness:
        """Whether the service can work: the database answers and its schema is up to date."""
        await store.ping()
        return Readiness()

    @router.get(
        "/datasets",
        tags=["datasets"],
        responses={200: {"model": DatasetPage}, **problems.responses(400, 422), **_ACCESS},
    )
    async def list_datasets(query: Annotated[PageQuery, Query()], _: Reader) -> Response:
        """The datasets by name: a page of them.

        A page goes on where the one before ended, so that none is shown twice or missed while others are
        added.
        """
        try:
            after = Cursor.decode(query.cursor) if query.cursor is not None else None
        except BadCursorError as error:
            raise Problem(400, str(error), code="bad_cursor") from error
        rows = await store.page(query.limit + 1, after, query.q, query.ref)
        following = None
        if len(rows) > query.limit:
            rows = rows[: query.limit]
            following = Cursor(rows[-1]["name"], rows[-1]["id"]).encode()
        return _json({"datasets": [_shown(row) for row in rows], "next_cursor": following})

    @router.post(
        "/datasets",
        tags=["datasets"],
        status_code=201,
        responses={
            201: {
                "model": Dataset,
                "headers": {
                    "Location": {"description": "The dataset's own address", "schema": {"type": "string"}}
                },
                "links": _LINKS,
            },
            **_BODY,
            **_ACCESS,
        },
    )
    async def create_dataset(
        dataset: Annotated[DatasetWrite, Body()], request: Request, principal: Writer
    ) -> Response:
        """Store a dataset; what is answered is on disk. Blanks around texts are cut off.

        `ref`, where it is given, is of one dataset alone: another one gets 409.
        """
        try:
            row = await store.add(dataset)
        except TakenError as error:
            raise _taken(dataset) from error
        changed(principal, "create", row["id"])
        return _json(_shown(row), 201, {"Location": f"{request.url.path}/{row['id']}"})

    @router.get(
        "/datasets/{dataset_id}",
        tags=["datasets"],
        responses={200: {"model": Dataset}, **problems.responses(404, 422), **_ACCESS},
    )
    async def get_dataset(dataset_id: DatasetId, _: Reader) -> Response:
        """One dataset."""
        return _json(_shown(_found(dataset_id, await store.get(dataset_id))))

    @router.put(
        "/datasets/{dataset_id}",
        tags=["datasets"],
        responses={200: {"model": Dataset}, **_BODY, **problems.responses(404), **_ACCESS},
    )
    async def replace_dataset(
        dataset_id: DatasetId, dataset: Annotated[DatasetWrite, Body()], principal: Writer
    ) -> Response:
        """Put a dataset in the place of another one: what is left out becomes empty."""
        try:
            row = _found(dataset_id, await store.replace(dataset_id, dataset))
        except TakenError as error:
            raise _taken(dataset) from error
        changed(principal, "replace", dataset_id)
        return _json(_shown(row))

    @router.delete(
        "/datasets/{dataset_id}",
        tags=["datasets"],
        status_code=204,
        response_class=Response,
        responses={**problems.responses(404, 422), **_ACCESS},
    )
    async def delete_dataset(dataset_id: DatasetId, principal: Writer) -> Response:
        """Forget a dataset; its files stay where they are."""
        if not await store.remove(dataset_id):
            raise _missing(dataset_id)
        changed(principal, "delete", dataset_id)
        return Response(status_code=204)

    return router


_LINKS = {
    operation: {"operationId": operation, "parameters": {"dataset_id": "$response.body#/id"}}
    for operation in ("get_dataset", "replace_dataset", "delete_dataset")
}


def _shown(row: Row) -> dict[str, Any]:
    """A row as its answer has it; the files are JSON already."""
    return row | {"files": orjson.Fragment(row["files"])}


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # Not through the models, which would check each row again: a test compares what comes out with them.
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def _missing(number: int) -> Problem:
    return Problem(404, f"there is no dataset {number}: GET /datasets lists those there are")


def _found(number: int, row: Row | None) -> Row:
    if row is None:
        raise _missing(number)
    return row


def _taken(dataset: DatasetWrite) -> Problem:
    return Problem(
        409,
        f"another dataset has the ref {dataset.ref}: GET /datasets?ref={dataset.ref} finds it",
        code="taken",
    )
