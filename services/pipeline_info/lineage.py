"""Lineage: OpenLineage's RunEvents come in, a graph of jobs and data sets goes out.

A node is `dataset:<namespace>:<name>` or `job:<namespace>:<name>`, as Marquez names them. An event that comes
twice counts once. What an event says of a job's inputs and outputs is added to the graph, with the time of
the event, so an event that says less (a START before the outputs are known) takes nothing away.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Protocol
from uuid import UUID

import orjson
from fastapi import APIRouter, Body, Depends, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from services.common import problems, security
from services.common.problems import Problem
from services.common.security import Gate, Principal
from services.common.strict import StrictRoute
from services.pipeline_info.models import Name, Open

MAX_NODES = 500
MAX_DATASETS = 1000
_ACCESS = problems.responses(401, 403, 422, 429, 503)
_FIRST_NODE = "$response.body#/graph/0/id"
DatasetName = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00]*$")]
NodeId = Annotated[
    str, Field(min_length=5, max_length=2048, pattern=r"^(dataset|job):[^\x00]+$", examples=["job:airflow:x"])
]


class _Part(BaseModel):
    """A part of an event; what else it says is kept with the event."""

    model_config = ConfigDict(extra="allow")


class LineageRun(_Part):
    """The run that an event is of."""

    runId: UUID


class LineageJob(_Part):
    """The job that ran."""

    namespace: Name
    name: DatasetName


class Dataset(_Part):
    """A data set that a job read or wrote."""

    namespace: Name
    name: DatasetName
    facets: Open = Field(default_factory=dict)

    @property
    def node(self) -> str:
        """Its node."""
        return f"dataset:{self.namespace}:{self.name}"


class RunEvent(_Part):
    """OpenLineage's RunEvent, as far as the graph needs it; the rest is kept as it came."""

    eventTime: AwareDatetime
    eventType: Literal["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"] | None = None
    run: LineageRun
    job: LineageJob
    inputs: Annotated[list[Dataset], Field(max_length=MAX_DATASETS)] = Field(default_factory=list)
    outputs: Annotated[list[Dataset], Field(max_length=MAX_DATASETS)] = Field(default_factory=list)

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


class LineageStore(Protocol):
    """Where lineage is kept."""

    def add_event(self, event: RunEvent, doc: bytes, fingerprint: str) -> bool:
        """Keep an event; False when it was there already."""

    def edges_of(self, nodes: Sequence[str], limit: int) -> list[tuple[str, str]]:
        """Edges from or to any of these nodes; the latest ones of all when none are given."""

    def columns_of(self, node: str) -> list[ColumnOrigin]:
        """Where the columns of a data set come from, and what is made of them."""


@dataclass
class Graph:
    """Nodes and the edges between them."""

    nodes: set[str] = field(default_factory=set)
    edges: set[tuple[str, str]] = field(default_factory=set)


def explore(store: LineageStore, node: str | None, depth: int) -> Graph:
    """What lies upstream and downstream of a node, `depth` steps each way; of none, the latest edges."""
    graph = Graph()
    if node is None:
        graph.edges = set(store.edges_of([], MAX_NODES))
        graph.nodes = {end for edge in graph.edges for end in edge}
        return graph
    for up in (True, False):
        seen, ring = {node}, [node]
        for _ in range(depth):
            ends = set(ring)
            found = store.edges_of(ring, MAX_NODES * 4)
            kept = [(a, b) for a, b in found if (b if up else a) in ends]
            graph.edges.update(kept)
            ring = sorted({a if up else b for a, b in kept} - seen)
            seen.update(ring)
            if not ring or len(seen) > MAX_NODES:
                break
        graph.nodes |= seen
    graph.edges = {(a, b) for a, b in graph.edges if a in graph.nodes and b in graph.nodes}
    return graph


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
            type="JOB" if node.startswith("job:") else "DATASET",
            inEdges=into[node],
            outEdges=out[node],
        )
        for node in sorted(graph.nodes)
    ]


def routes(store: LineageStore, gate: Gate) -> APIRouter:
    """The routes over a store."""
    router = APIRouter(prefix="/api/v1", tags=["lineage"], route_class=StrictRoute)
    Reader = Annotated[Principal, Depends(gate.require(security.READ))]
    Writer = Annotated[Principal, Depends(gate.require(security.LINEAGE))]

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
        """Take an OpenLineage RunEvent; the same event again changes nothing."""
        doc = orjson.dumps(event.model_dump(mode="json"))
        print_ = security.digest(orjson.dumps(orjson.loads(doc), option=orjson.OPT_SORT_KEYS))
        new = store.add_event(event, doc, print_)
        if new:
            gate.audit(principal, "lineage", [{"job": event.node, "run": str(event.run.runId)}])
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
        _: Reader,
        nodeId: Annotated[NodeId | None, Query()] = None,
        depth: Annotated[int, Query(ge=0, le=50)] = 20,
    ) -> LineageGraph:
        """What lies upstream and downstream of a node; without one, the latest part of the graph."""
        graph = explore(store, nodeId, depth)
        if nodeId is not None and not store.edges_of([nodeId], 1):
            raise Problem(404, f"there is no node {nodeId}")
        return LineageGraph(graph=as_nodes(graph))

    @router.get("/column-lineage", responses=_ACCESS)
    def column_lineage(
        _: Reader,
        nodeId: Annotated[NodeId, Query()],
    ) -> ColumnLineage:
        """Where the columns of a data set come from, and what is made of them."""
        return ColumnLineage(items=store.columns_of(nodeId))

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


def utc(time: datetime) -> datetime:
    """A time in UTC."""
    return time.astimezone(UTC)
