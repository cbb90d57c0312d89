"""The routes that speak JSON."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, Field

from services.common import problems, security
from services.common.security import AccessControl, Principal
from services.common.strict import StrictRoute
from services.pancake.models import MAX_ID, PancakeCreate, PancakeResponse
from services.pancake.store import PancakeStore

_ACCESS = problems.responses(401, 403, 429, 503)


class PageQuery(BaseModel):
    """Which page of the list."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=500, description="How many at most.")] = 50
    before: (
        Annotated[int, Field(ge=1, le=MAX_ID, description="Only pancakes with a smaller id than this.")]
        | None
    ) = None


class Health(BaseModel):
    """The service lives."""

    status: Literal["healthy"] = "healthy"
    service: Literal["pancake-backend"] = "pancake-backend"


class Readiness(BaseModel):
    """The database answers and has the table."""

    status: Literal["ready"] = "ready"
    service: Literal["pancake-backend"] = "pancake-backend"


def routes(store: PancakeStore, access: AccessControl, created: Counter) -> APIRouter:
    """The routes over a store."""
    router = APIRouter(route_class=StrictRoute)
    Reader = Annotated[Principal, Depends(access.require(security.READ))]
    Writer = Annotated[Principal, Depends(access.require(security.WRITE))]

    @router.get("/health", tags=["service"])
    async def health() -> Health:
        """Whether the service lives; does not ask the database."""
        return Health()

    @router.get("/ready", tags=["service"], responses=problems.responses(503))
    def ready() -> Readiness:
        """Whether the service can work: the database answers and has the table."""
        store.ping()
        return Readiness()

    @router.get(
        "/api/pancakes",
        tags=["pancakes"],
        responses={
            200: {
                "headers": {
                    "Link": {
                        "description": 'The next page, as `<address>; rel="next"`, when there is one.',
                        "schema": {"type": "string"},
                    }
                }
            },
            **problems.responses(422),
            **_ACCESS,
        },
    )
    def list_pancakes(
        query: Annotated[PageQuery, Query()], request: Request, response: Response, _: Reader
    ) -> list[PancakeResponse]:
        """The pancakes, newest first: a page of them.

        A page is asked for by the last id of the one before, so that none is shown twice or missed while
        others are added.
        """
        found = store.newest(query.limit + 1, query.before)
        if len(found) > query.limit:
            found = found[: query.limit]
            address = f"{request.url.path}?limit={query.limit}&before={found[-1].id}"
            response.headers["Link"] = f'<{address}>; rel="next"'
        return [PancakeResponse.model_validate(pancake) for pancake in found]

    @router.post(
        "/api/pancakes",
        tags=["pancakes"],
        status_code=201,
        responses={**problems.responses(400, 413, 422), **_ACCESS},
    )
    def create_pancake(pancake: Annotated[PancakeCreate, Body()], principal: Writer) -> PancakeResponse:
        """Store a pancake; what is answered is on disk. Blanks around texts are cut off."""
        stored = store.add(pancake)
        created.inc()
        access.audit(principal, "create", [{"id": stored.id}])
        return PancakeResponse.model_validate(stored)

    return router
