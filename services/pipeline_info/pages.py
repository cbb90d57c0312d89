"""The pages that an operator opens in the morning: server-rendered, nothing loaded from elsewhere."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import orjson
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader
from pydantic import ValidationError

from services.common import security
from services.common.problems import Problem
from services.common.security import Gate, Principal
from services.pipeline_info import flow
from services.pipeline_info.api import visible
from services.pipeline_info.lineage import LineageStore, drawn, explore, label
from services.pipeline_info.models import PipelineSummary, RunConditions, RunFilter
from services.pipeline_info.repository import BadCursorError, Cursor, PipelineInfoRepository, StoredRun
from services.pipeline_info.settings import Settings
from services.pipeline_info.summary import Signature

PAGE = 50
WINDOW = 400  # runs in the timeline, and what the trends are drawn from
TREND = 24
FIELDS = ("q", "pipeline_name", "environment", "pipeline_type", "state", "from", "to")
# What is not from here is not loaded and not run.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
}


def number(value: float | None) -> str:
    """A number for people: thin spaces between thousands."""
    return "" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def seconds(value: float | None) -> str:
    """A duration for people."""
    if value is None:
        return ""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def moment(value: str | datetime | None) -> str:
    """A time in UTC, to the second."""
    if not value:
        return ""
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def tone(state: object) -> str:
    """Whether a state is good, bad, or neither: what its colour says beside its word."""
    word = str(state or "").lower()
    if word in {"success", "succeeded", "published", "ok", "done"}:
        return "good"
    return "bad" if word in {"failed", "failure", "error", "upstream_failed"} else "plain"


def safe_url(value: object) -> str | None:
    """A link that may stand in a page: http and https only, since `extra` is anybody's."""
    return value if isinstance(value, str) and value.startswith(("http://", "https://")) else None


def spark(values: Sequence[float]) -> str:
    """The points of a line of durations, in a box of 100 by 24."""
    top = max(values, default=0) or 1
    step = 100 / max(len(values) - 1, 1)
    return " ".join(f"{place * step:.1f},{22 - value / top * 20:.1f}" for place, value in enumerate(values))


def _signature(fields: dict[str, Any]) -> Signature:
    return (
        fields["pipeline_name"],
        fields["script_name"],
        fields["pipeline_type"],
        fields["environment"],
    )


class _Query:
    """What the address bar asks for."""

    def __init__(self, request: Request) -> None:
        given = request.query_params
        self.values = {name: given.get(name, "").strip() for name in FIELDS}
        self.error = ""
        conditions: dict[str, Any] = {
            name: self.values[name] or None
            for name in ("pipeline_name", "environment", "pipeline_type", "state")
        }
        try:
            if self.values["from"]:
                conditions["start_from"] = _midnight(self.values["from"])
            if self.values["to"]:
                conditions["start_before"] = _midnight(self.values["to"]) + timedelta(days=1)
            self.conditions = RunConditions.model_validate(conditions)
        except (ValidationError, ValueError, OverflowError):
            self.error = "This filter cannot be used, so all runs are shown: check the dates."
            self.conditions = RunConditions()

    def filter(self, principal: Principal, summaries: Sequence[PipelineSummary]) -> RunFilter:
        """The conditions, with the pipelines that the search found."""
        fields = {name: getattr(self.conditions, name) for name in RunConditions.model_fields}
        found = None
        if word := self.values["q"].lower():
            names = {item.pipeline_name for item in summaries if item.pipeline_name}
            found = tuple(sorted(name for name in names if word in name.lower()))[:200]
        return RunFilter.model_construct(
            **fields, only_environments=principal.environments, only_pipelines=found
        )

    def matches(self, item: PipelineSummary) -> bool:
        """Whether a summary is of a pipeline that is asked for."""
        wanted = self.conditions
        equal = all(
            getattr(wanted, name) in {None, getattr(item, name)}
            for name in ("pipeline_name", "environment", "pipeline_type")
        )
        return equal and self.values["q"].lower() in (item.pipeline_name or "").lower()

    def url(self, path: str = "/", **changes: str) -> str:
        """The address with some of its fields changed."""
        fields = {name: value for name, value in (self.values | changes).items() if value}
        return path + ("?" + urlencode(fields) if fields else "")


def _midnight(text: str) -> datetime:
    day = date.fromisoformat(text)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _rows(runs: Sequence[StoredRun]) -> list[dict[str, Any]]:
    return [orjson.loads(run.doc) for run in runs]


def _timeline(rows: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """What the chart draws: start, end (both in ms), pipeline, state, id, rows."""
    bars = []
    for row in rows:
        start = datetime.fromisoformat(row["start_utc"]).timestamp() * 1000
        end = start + (row["elapsed_seconds"] or 0) * 1000
        state = str(row["extra"].get("state") or "")
        name = row["pipeline_name"] or "(no name)"
        bars.append([start, end, name, state, tone(state), row["id"], row["rowcount"]])
    return bars


def _trends(rows: Sequence[dict[str, Any]]) -> dict[Signature, str]:
    values: dict[Signature, list[float]] = defaultdict(list)
    for row in rows:
        kept = values[_signature(row)]
        if len(kept) < TREND and row["elapsed_seconds"] is not None:
            kept.append(row["elapsed_seconds"])
    return {key: spark(kept[::-1]) for key, kept in values.items() if len(kept) > 1}


def _links(row: dict[str, Any], settings: Settings) -> list[tuple[str, str]]:
    """Where to go from a run: what it brought itself, and its page in Airflow."""
    found: list[tuple[str, str]] = []
    links = row["extra"].get("links")
    for name, value in links.items() if isinstance(links, dict) else ():
        if url := safe_url(value):
            found.append((str(name), url))
    dag_run = row["extra"].get("dag_run_id")
    if settings.airflow_url and isinstance(dag_run, str):
        page = f"/dags/{quote(row['pipeline_name'] or '', safe='')}/runs/{quote(dag_run, safe='')}"
        found.append(("Airflow", settings.airflow_url.rstrip("/") + page))
    for name in ("output_file", "log_file"):
        if url := safe_url(row[name]):
            found.append((name.replace("_", " "), url))
    return found


def routes(
    repository: PipelineInfoRepository, lineage: LineageStore, settings: Settings, gate: Gate
) -> APIRouter:
    """The pages over a store."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"number": number, "seconds": seconds, "moment": moment, "tone": tone}
    Reader = Annotated[Principal, Depends(gate.require(security.READ, browser=True))]

    def page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
        content = templates.get_template(name).render(**values)
        return HTMLResponse(content, status_code=status, headers=HEADERS)

    @router.get("/")
    def home(request: Request, principal: Reader) -> Response:
        """Every pipeline and its latest runs."""
        query = _Query(request)
        summaries = visible(repository.get_pipelines_summary(), principal)
        wanted = query.filter(principal, summaries)
        found = repository.get_pipeline_info(wanted, limit=WINDOW)
        rows = _rows(found)
        total = repository.count_pipeline_info(wanted, bound=settings.total_bound + 1)
        shown = sorted(
            (item for item in summaries if query.matches(item)),
            key=lambda item: item.last_start_utc,
            reverse=True,
        )
        return page(
            "home.html",
            query=query,
            summaries=shown[:100],
            hidden=max(0, len(shown) - 100),
            trends=_trends(rows),
            signature=lambda item: _signature(item.model_dump()),
            bars=_timeline(rows),
            rows=rows[:PAGE],
            more=_more(query, found[:PAGE], has_more=len(found) > PAGE),
            total=min(total, settings.total_bound),
            total_is_exact=total <= settings.total_bound,
            names=sorted({item.pipeline_name for item in summaries if item.pipeline_name}),
            environments=sorted({item.environment for item in summaries if item.environment}),
            types=sorted({item.pipeline_type for item in summaries if item.pipeline_type}),
            states=sorted({item.last_state for item in summaries if item.last_state} | {"success", "failed"}),
        )

    @router.get("/rows")
    def more_rows(request: Request, principal: Reader, cursor: str) -> Response:
        """The next runs of the table."""
        query = _Query(request)
        try:
            after = Cursor.decode(cursor)
        except BadCursorError as error:
            raise Problem(400, str(error), code="bad_cursor") from error
        wanted = query.filter(principal, visible(repository.get_pipelines_summary(), principal))
        found = repository.get_pipeline_info(wanted, limit=PAGE + 1, after=after)
        more = _more(query, found[:PAGE], has_more=len(found) > PAGE)
        return page("rows.html", rows=_rows(found[:PAGE]), more=more, query=query)

    @router.get("/run/{run_id}")
    def run(run_id: str, request: Request, principal: Reader) -> Response:
        """One run, with its ledger as a flow."""
        stored = repository.get_run(run_id) if run_id.isascii() and run_id.isprintable() else None
        if stored is None or not principal.may_use(orjson.loads(stored.doc)["environment"]):
            return page("missing.html", 404, query=_Query(request), run_id=run_id)
        row = orjson.loads(stored.doc)
        lines = flow.lines_of(row["extra"])
        table = request.query_params.get("table") or None
        picture = flow.flow(lines, table)
        rest = {name: value for name, value in row["extra"].items() if name not in {"ledger", "links"}}
        return page(
            "run.html",
            query=_Query(request),
            run=row,
            links=_links(row, settings),
            lines=[line for line in lines if table in {None, line.table}],
            tables=sorted({line.table for line in lines}),
            table=table,
            broken=sum(not line.closed for line in lines),
            picture={"nodes": picture.nodes, "links": picture.links},
            extra=orjson.dumps(rest, option=orjson.OPT_INDENT_2).decode() if rest else "",
        )

    @router.get("/lineage")
    def graph(request: Request, principal: Reader, node: str = "") -> Response:
        """The graph of data sets and jobs, or the part around one of them."""
        node = node.strip().replace("\x00", "")
        found = explore(lineage, node or None, depth=20)
        everything = found if not node else explore(lineage, None, depth=1)
        if node and not found.edges:
            found.nodes.clear()
        return page(
            "lineage.html",
            query=_Query(request),
            node=node,
            names=sorted(everything.nodes),
            picture=drawn(found),
            columns=lineage.columns_of(node)[:500] if node.startswith("dataset:") else [],
            label=label,
            node_url=lambda name: "/lineage?" + urlencode({"node": name}),
        )

    return router


def _more(query: _Query, shown: Sequence[StoredRun], *, has_more: bool) -> str | None:
    """The address of the rows after those shown."""
    return query.url("/rows", cursor=shown[-1].cursor().encode()) if has_more and shown else None
