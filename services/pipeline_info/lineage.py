"""Lineage: OpenLineage's RunEvents come in, a graph of jobs and data sets goes out.

A node is `dataset:<namespace>:<name>` or `job:<namespace>:<name>`, as Marquez names them. An event that comes
twice counts once. What an event says of a job's inputs and outputs is added to the graph, with the time of
the event, so an event that says less (a START before the outputs are known) takes nothing away.

Where an event says what the columns of a data set are made of, the way follows that: a job that writes ten
data sets does not make each of them come from all that it read. What nobody reports any more is hidden after
a while, and `python -m services.pipeline_info.retire` removes it.

An event is of one environment: that of its tag `environment` (OpenLineage's facet `tags`), else the only one
of the key that it was sent with. Who is limited to some environments sees what was reported in those.
"""

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Protocol, Self
from uuid import UUID

import orjson
from fastapi import APIRouter, Body, Depends, Query, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from services.common import problems, security
from services.common.problems import Problem
from services.common.security import AccessControl, Principal
from services.common.strict import StrictRoute
from services.pipeline_info.models import EARLIEST, LATEST, Name, storable
from services.pipeline_info.settings import Settings

MAX_NODES = 500
MAX_DATASETS = 1000
MAX_COLUMNS = 20_000
MAX_DEPTH = 100
MAX_FOUND = 50
_MOST_MATCHES = 2000  # how many nodes a search ranks
_MOST_WORDS = 10
_ACCESS = problems.responses(401, 403, 422, 429, 503)
_FIRST_NODE = "$response.body#/graph/0/id"
DatasetName = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00]*$")]
NodeId = Annotated[
    str, Field(min_length=5, max_length=2048, pattern=r"^(dataset|job):[^\x00]+$", examples=["job:airflow:x"])
]


def _of_our_age(value: datetime) -> datetime:
    """Keep away from the ends of the calendar, where arithmetic overflows."""
    # Compared before it is brought to UTC: an offset can carry a time over the end of the calendar.
    if not EARLIEST.year <= value.year < LATEST.year:
        raise ValueError(f"year {value.year}: give a time from {EARLIEST.year} to {LATEST.year - 1}")
    return value


class _Part(BaseModel):
    """A part of an event; what else it says is kept with the event."""

    model_config = ConfigDict(extra="allow")


class LineageRun(_Part):
    """The run that an event is of."""

    runId: UUID
    facets: dict[str, Any] = Field(default_factory=dict)


class LineageJob(_Part):
    """The job that ran."""

    namespace: Name
    name: DatasetName
    facets: dict[str, Any] = Field(default_factory=dict)


class Dataset(_Part):
    """A data set that a job read or wrote."""

    namespace: Name
    name: DatasetName
    facets: dict[str, Any] = Field(default_factory=dict)

    @property
    def node(self) -> str:
        """Its node."""
        return f"dataset:{self.namespace}:{self.name}"


class RunEvent(_Part):
    """OpenLineage's RunEvent, as far as the graph needs it; the rest is kept as it came."""

    eventTime: Annotated[AwareDatetime, AfterValidator(_of_our_age)]
    eventType: Literal["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"] | None = None
    run: LineageRun
    job: LineageJob
    inputs: Annotated[list[Dataset], Field(max_length=MAX_DATASETS)] = Field(default_factory=list)
    outputs: Annotated[list[Dataset], Field(max_length=MAX_DATASETS)] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """What is kept with the event has to come back as it was, however little of it the graph needs."""
        return storable(value, MAX_DEPTH)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if (found := len(self.columns())) > MAX_COLUMNS:
            raise ValueError(f"{found} origins of columns: send at most {MAX_COLUMNS} with an event")
        return self

    def environments(self) -> set[str]:
        """The values of its tags named `environment`."""
        found = set()
        for facets in (self.run.facets, self.job.facets):
            facet = facets.get("tags")
            tags = facet.get("tags") if isinstance(facet, dict) else None
            for tag in tags if isinstance(tags, list) else ():
                if isinstance(tag, dict) and str(tag.get("key")).lower() == "environment":
                    found.add(str(tag.get("value")))
        return found

    @property
    def node(self) -> str:
        """The job's node."""
        return f"job:{self.job.namespace}:{self.job.name}"

    def edges(self) -> list[tuple[str, str]]:
        """From what was read to the job, from the job to what was written."""
        found = {(item.node, self.node) for item in self.inputs}
        return sorted(found | {(self.node, item.node) for item in self.outputs})

    def columns(self) -> list[tuple[str, str, str, str, str]]:
        """Target, its field, source, its field, and how: from the outputs' `columnLineage` facets."""
        found: dict[tuple[str, str, str, str], str] = {}
        for item in self.outputs:
            facet = item.facets.get("columnLineage")
            fields = facet.get("fields") if isinstance(facet, dict) else None
            for name, value in fields.items() if isinstance(fields, dict) else ():
                inputs = value.get("inputFields") if isinstance(value, dict) else None
                for source in inputs if isinstance(inputs, list) else ():
                    try:
                        origin = f"dataset:{source['namespace']}:{source['name']}"
                        found[item.node, str(name), origin, str(source["field"])] = _how(source)
                    except (KeyError, TypeError):
                        continue
        return sorted((*key, how) for key, how in found.items())


def _how(source: dict[str, Any]) -> str:
    kinds = source.get("transformations")
    words = [
        str(kind.get("subtype") or kind.get("type") or "")
        for kind in (kinds if isinstance(kinds, list) else [])
        if isinstance(kind, dict)
    ]
    return ", ".join(sorted({word.lower() for word in words if word}))[:255]


@dataclass(frozen=True)
class ColumnOrigin:
    """Where a column comes from."""

    target: str
    target_field: str
    source: str
    source_field: str
    how: str


@dataclass(frozen=True)
class FoundNode:
    """A node, and when it was last reported."""

    node: str
    reported_at: datetime


@dataclass(frozen=True)
class Seen:
    """What of the graph is seen.

    Attributes:
        environments: What was reported in these; None for all.
        since: What was reported then or later; None for all.
    """

    environments: tuple[str, ...] | None = None
    since: datetime | None = None


class LineageStore(Protocol):
    """Where lineage is kept."""

    def add_event(self, event: RunEvent, doc: bytes, fingerprint: str, environment: str) -> bool:
        """Keep an event; False when it was there already."""

    def edges_of(self, nodes: Sequence[str], limit: int, seen: Seen) -> list[tuple[str, str]]:
        """Edges from or to any of these nodes; the latest ones of all when none are given."""

    def origins_of(self, nodes: Sequence[str], limit: int, seen: Seen) -> list[tuple[str, str]]:
        """Of these data sets: which are made of columns of which, as pairs of source and target."""

    def columns_of(self, node: str, seen: Seen) -> list[ColumnOrigin]:
        """Where the columns of a data set come from, and what is made of them."""

    def find(self, words: Sequence[str], limit: int, seen: Seen) -> list[FoundNode]:
        """Nodes whose id has all of these words, in any case; the latest first."""

    def retire(self, before: datetime, *, dry: bool = False) -> dict[str, int]:
        """Remove what was last reported before this instant, or only count it."""


@dataclass
class Graph:
    """Nodes and the edges between them."""

    nodes: set[str] = field(default_factory=set)
    edges: set[tuple[str, str]] = field(default_factory=set)


def explore(store: LineageStore, node: str | None, depth: int, seen: Seen) -> Graph:
    """What lies upstream and downstream of a node, `depth` steps each way; of none, the latest edges.

    Upstream of a data set whose columns are known stand only the data sets that they come from, though the
    job between may read others; downstream likewise.
    """
    graph = Graph()
    if node is None:
        graph.edges = set(store.edges_of([], MAX_NODES, seen))
        graph.nodes = {end for edge in graph.edges for end in edge}
        return graph
    for up in (True, False):
        way = _Way(store, seen, up=up)
        way.follow(node, depth)
        graph.nodes |= way.nodes
        graph.edges |= way.edges
    graph.edges = {(a, b) for a, b in graph.edges if a in graph.nodes and b in graph.nodes}
    return graph


class _Way:
    """The way up, or down, from a node: `near` is where it comes from, `far` where it goes.

    Args:
        store: Where the edges are.
        seen: What of them is seen.
        up: Whether it goes to what a node is made of.
    """

    def __init__(self, store: LineageStore, seen: Seen, *, up: bool) -> None:
        self._store, self._seen, self._up = store, seen, up
        self.nodes: set[str] = set()
        self.edges: set[tuple[str, str]] = set()

    def follow(self, node: str, depth: int) -> None:
        """Go so many steps; a data set beyond a job is two of them."""
        self.nodes = {node}
        if node.startswith("job:"):
            ring = self._add((node, far) for far in self._next([node])[node]) if depth else set()
            depth -= 1
        else:
            ring = {node}
        while ring and depth > 0 and len(self.nodes) <= MAX_NODES:
            ring = self._beyond(ring, depth)
            depth -= 2

    def _beyond(self, datasets: set[str], depth: int) -> set[str]:
        """The data sets one job further than these."""
        jobs = self._next(datasets)
        self._add((near, job) for near, found in jobs.items() for job in found)
        if depth < 2:
            return set()
        beyond = self._next({job for found in jobs.values() for job in found})
        ends = {far for found in beyond.values() for far in found}
        known, having = self._columns(datasets if self._up else datasets | ends)
        new = set[str]()
        for near in datasets:
            reached = set[str]()
            for job in jobs[near]:
                # Without columns of the target nothing tells its sources apart, so all of the job's count.
                kept = {
                    far
                    for far in beyond[job]
                    if far in known[near] or (near if self._up else far) not in having
                }
                new |= self._add((job, far) for far in kept)
                reached |= beyond[job]
            # A job may make one data set of another that it wrote itself: no edge of its own says so.
            new |= self._add((near, far) for far in known[near] - reached)
        return new

    def _next(self, nodes: Iterable[str]) -> dict[str, set[str]]:
        """By node, what stands one edge further."""
        found: dict[str, set[str]] = defaultdict(set)
        wanted = sorted(nodes)
        if wanted:
            for source, target in self._store.edges_of(wanted, MAX_NODES * 4, self._seen):
                near, far = (target, source) if self._up else (source, target)
                found[near].add(far)
        return found

    def _columns(self, datasets: set[str]) -> tuple[dict[str, set[str]], set[str]]:
        """By data set, those one further by their columns; and the targets whose columns are known."""
        found: dict[str, set[str]] = defaultdict(set)
        having = set[str]()
        for source, target in self._store.origins_of(sorted(datasets), MAX_NODES * 4, self._seen):
            having.add(target)
            near, far = (target, source) if self._up else (source, target)
            if near != far:
                found[near].add(far)
        return found, having

    def _add(self, steps: Iterable[tuple[str, str]]) -> set[str]:
        """Add edges; the nodes that are new."""
        new = set[str]()
        for near, far in steps:
            self.edges.add((far, near) if self._up else (near, far))
            if far not in self.nodes:
                new.add(far)
        self.nodes |= new
        return new


def search(store: LineageStore, text: str, seen: Seen) -> list[FoundNode]:
    """The nodes whose id has every word of a text, the best first.

    Best is a name that is the text, then one that ends or begins with it, then one that has it as a word.
    """
    words = text.lower().split()[:_MOST_WORDS]
    if not words:
        return []
    found = store.find(words, _MOST_MATCHES, seen)
    return sorted(found, key=lambda one: _rank(one.node, text.strip().lower(), words))[:MAX_FOUND]


def _rank(node: str, text: str, words: Sequence[str]) -> tuple[int, bool, int, str]:
    whole = node.lower()
    name = label(whole)
    last = re.split(r"[./]", name)[-1]
    if text in {whole, name, last}:
        place = 0
    elif last.startswith(text):
        place = 1
    elif name.startswith(text) or name.endswith(text):
        place = 2
    elif all(re.search(rf"(?<![a-z0-9]){re.escape(word)}", name) for word in words):
        place = 3
    else:
        place = 4 if all(word in name for word in words) else 5
    return place, node.startswith("job:"), len(name), node


def layers(graph: Graph) -> dict[str, int]:
    """How far from the beginning each node stands: one more than the farthest before it.

    In a circle (a job that reads what it writes) the edge that closes it counts for nothing.
    """
    after: dict[str, list[str]] = defaultdict(list)
    waiting: dict[str, int] = dict.fromkeys(graph.nodes, 0)
    for source, target in sorted(graph.edges):
        after[source].append(target)
        waiting[target] += 1
    place = dict.fromkeys(graph.nodes, 0)
    left = set(graph.nodes)
    while left:
        free = sorted(node for node in left if waiting[node] == 0)
        ready = deque(free or [min(left, key=lambda node: (waiting[node], node))])
        while ready:
            node = ready.popleft()
            if node not in left:
                continue
            left.discard(node)
            for following in after[node]:
                if following in left:
                    place[following] = max(place[following], place[node] + 1)
                    waiting[following] -= 1
                    if waiting[following] == 0:
                        ready.append(following)
    return place


class Edge(BaseModel):
    """An edge of the graph."""

    origin: str
    destination: str


class Node(BaseModel):
    """A node of the graph with its edges, as Marquez gives it."""

    id: str
    type: Literal["DATASET", "JOB"]
    inEdges: list[Edge]
    outEdges: list[Edge]


class LineageGraph(BaseModel):
    """A piece of the graph."""

    graph: list[Node]


class ColumnLineage(BaseModel):
    """Where the columns of a data set come from, and what is made of them."""

    items: list[ColumnOrigin]


def as_nodes(graph: Graph) -> list[Node]:
    """The graph in Marquez's form."""
    into: dict[str, list[Edge]] = defaultdict(list)
    out: dict[str, list[Edge]] = defaultdict(list)
    for source, target in sorted(graph.edges):
        edge = Edge(origin=source, destination=target)
        out[source].append(edge)
        into[target].append(edge)
    return [
        Node(
            id=node,
            type=kind_of(node),
            inEdges=into[node],
            outEdges=out[node],
        )
        for node in sorted(graph.nodes)
    ]


class FoundItem(BaseModel):
    """A node that a search found."""

    nodeId: str
    type: Literal["DATASET", "JOB"]
    name: str
    updatedAt: datetime


class Found(BaseModel):
    """What a search found, the best first."""

    totalCount: int
    results: list[FoundItem]


def kind_of(node: str) -> Literal["DATASET", "JOB"]:
    """What a node is."""
    return "JOB" if node.startswith("job:") else "DATASET"


def seen_by(principal: Principal, settings: Settings, *, retired: bool = False) -> Seen:
    """What of the graph the asker sees: what is retired only when it is asked for."""
    since = datetime.now(UTC) - timedelta(days=settings.lineage_days)
    return Seen(principal.environments, None if retired else since)


def environment_of(event: RunEvent, principal: Principal, settings: Settings) -> str:
    """The environment that an event is of; empty when nobody says.

    Raises:
        Problem: 403 when it is not the sender's, 422 when it says several, or one that there is not.
    """
    said = event.environments()
    if len(said) > 1:
        raise _invalid(f"tags name {len(said)} environments: {', '.join(sorted(said)[:5])}: name one")
    if said:
        (environment,) = said
        if not 0 < len(environment) <= 64:
            raise _invalid("the tag environment: give 1 to 64 characters")
        if settings.environments and environment not in settings.environments:
            raise _invalid(
                f"the tag environment: {environment!r} is not one of {', '.join(settings.environments)}"
            )
    elif principal.environments is None:
        environment = ""
    elif len(principal.environments) == 1:
        (environment,) = principal.environments
    else:
        raise Problem(
            403,
            f"{principal.name} may add lineage of {', '.join(principal.environments) or 'no environment'}:"
            " say which in a tag `environment` of the run",
        )
    if not principal.may_use(environment):
        raise Problem(403, f"{principal.name} may not add lineage of environment {environment}")
    return environment


def _invalid(what: str) -> Problem:
    return Problem(422, what, code="invalid", errors=[{"where": "tags", "what": what}])


def routes(store: LineageStore, settings: Settings, access: AccessControl) -> APIRouter:
    """The routes over a store."""
    router = APIRouter(prefix="/api/v1", tags=["lineage"], route_class=StrictRoute)
    Reader = Annotated[Principal, Depends(access.require(security.READ))]
    Writer = Annotated[Principal, Depends(access.require(security.LINEAGE))]
    Retired = Annotated[bool, Query(description="Also what nobody has reported for a while")]

    @router.post(
        "/lineage",
        status_code=201,
        response_class=Response,
        responses={
            200: {"description": "This event was known"},
            201: {"description": "Kept"},
            **problems.responses(400, 413),
            **_ACCESS,
        },
    )
    def add_event(event: Annotated[RunEvent, Body()], principal: Writer) -> Response:
        """Take an OpenLineage RunEvent; the same event again changes nothing.

        Its environment is that of the tag `environment` of its run or job, else the only one of the key.
        """
        environment = environment_of(event, principal, settings)
        doc = orjson.dumps(event.model_dump(mode="json"))
        print_ = security.digest(
            environment.encode() + orjson.dumps(orjson.loads(doc), option=orjson.OPT_SORT_KEYS)
        )
        new = store.add_event(event, doc, print_, environment)
        if new:
            access.audit(principal, "lineage", [{"job": event.node, "run": str(event.run.runId)}])
        return Response(status_code=201 if new else 200)

    @router.get(
        "/lineage",
        responses={
            200: {
                "links": {
                    "around": {"operationId": "lineage", "parameters": {"query.nodeId": _FIRST_NODE}},
                    "columns": {"operationId": "column_lineage", "parameters": {"query.nodeId": _FIRST_NODE}},
                }
            },
            **problems.responses(404),
            **_ACCESS,
        },
    )
    def lineage(
        principal: Reader,
        nodeId: Annotated[NodeId | None, Query()] = None,
        depth: Annotated[int, Query(ge=0, le=50)] = 20,
        retired: Retired = False,
    ) -> LineageGraph:
        """What lies upstream and downstream of a node; without one, the latest part of the graph."""
        seen = seen_by(principal, settings, retired=retired)
        graph = explore(store, nodeId, depth, seen)
        if nodeId is not None and not store.edges_of([nodeId], 1, seen):
            raise Problem(404, f"there is no node {nodeId}: search with /api/v1/search?q=")
        return LineageGraph(graph=as_nodes(graph))

    @router.get("/column-lineage", responses=_ACCESS)
    def column_lineage(
        principal: Reader, nodeId: Annotated[NodeId, Query()], retired: Retired = False
    ) -> ColumnLineage:
        """Where the columns of a data set come from, and what is made of them."""
        return ColumnLineage(items=store.columns_of(nodeId, seen_by(principal, settings, retired=retired)))

    @router.get("/search", name="search_lineage", responses=_ACCESS)
    def search_lineage(
        principal: Reader,
        q: Annotated[str, Query(min_length=1, max_length=255, pattern=r"^[^\x00]*$")],
        retired: Retired = False,
    ) -> Found:
        """Data sets and jobs whose name has every word of `q`, in any case, the best first."""
        found = search(store, q, seen_by(principal, settings, retired=retired))
        items = [
            FoundItem(
                nodeId=one.node, type=kind_of(one.node), name=label(one.node), updatedAt=one.reported_at
            )
            for one in found
        ]
        return Found(totalCount=len(items), results=items)

    return router


def label(node: str, most: int = 0) -> str:
    """A node's short name: its end, which tells it apart, when it is longer than `most` characters."""
    name = node.rsplit(":", 1)[-1] if ":" in node else node
    return f"…{name[1 - most :]}" if most and len(name) > most else name


def drawn(graph: Graph) -> dict[str, Any]:
    """The graph laid out from left to right, for the page."""
    place = layers(graph)
    rows: dict[int, int] = defaultdict(int)
    nodes: list[dict[str, Any]] = []
    for node in sorted(graph.nodes, key=lambda node: (place[node], node)):
        layer = place[node]
        kind = "job" if node.startswith("job:") else "dataset"
        nodes.append({"id": node, "label": label(node, 24), "kind": kind, "x": layer, "y": rows[layer]})
        rows[layer] += 1
    height = max(rows.values(), default=0)
    for drawn_node in nodes:
        drawn_node["y"] += (height - rows[drawn_node["x"]]) / 2  # each layer around the middle
    links = [{"source": source, "target": target} for source, target in sorted(graph.edges)]
    return {"nodes": nodes, "links": links, "height": height}
