"""The pages that an operator opens in the morning: server-rendered, nothing loaded from elsewhere."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
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
from services.common.security import AccessControl, Principal
from services.pipeline_info import flow
from services.pipeline_info.api import filter_of, named_like, visible
from services.pipeline_info.lineage import LineageStore, Seen, drawn, explore, label, search, seen_by
from services.pipeline_info.models import PipelineSummary, RunConditions, RunFilter, state_of
from services.pipeline_info.repository import BadCursorError, Cursor, PipelineInfoRepository, RunRow
from services.pipeline_info.settings import Settings
from services.pipeline_info.summary import Signature

PAGE = 50
NAMES = 500  # of nodes that the search box offers
MOST_NODE = 2048  # characters of what is searched for
WINDOW = 400  # runs in the timeline, and what the trends are drawn from
TREND = 24
SAMPLE = 5  # rows that a failure shows
MOST_EXTRA = 64 * 1024  # characters of `extra` that a page shows
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


def exact(value: Decimal) -> str:
    """A number of a ledger to its last digit, without an exponent."""
    return f"{value:f}"


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


def _signature(one: RunRow | PipelineSummary) -> Signature:
    return one.pipeline_name, one.script_name, one.pipeline_type, one.environment


@dataclass(frozen=True)
class Failure:
    """Why a run failed, as it said itself in `extra.failure`: cut to what a page can show."""

    message: str
    facts: tuple[tuple[str, str], ...]
    sample: tuple[str, ...]
    remedy: str


def failure_of(extra: dict[str, Any]) -> Failure | None:
    """Why a run failed, if it says so; what is of another form is left out, because `extra` is anybody's."""
    told = extra.get("failure")
    if not isinstance(told, dict):
        return None
    count = told.get("count")
    facts = [(name.capitalize(), _text(told.get(name), 300)) for name in ("task", "table", "rule")]
    if isinstance(count, int) and not isinstance(count, bool):
        facts.append(("Rows", number(count)))
    sample = told.get("sample")
    found = Failure(
        message=_text(told.get("message"), 2000),
        facts=tuple((name, value) for name, value in facts if value),
        sample=tuple(_text(one, 300) for one in (sample if isinstance(sample, list) else [])[:SAMPLE]),
        remedy=_text(told.get("remedy"), 2000),
    )
    return found if found.message or found.facts else None


def _text(value: object, most: int) -> str:
    if not isinstance(value, str):
        return ""
    return value if len(value) <= most else f"{value[:most]}…"


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
        return filter_of(self.conditions, principal, named_like(self.values["q"], summaries))

    def matches(self, item: PipelineSummary) -> bool:
        """Whether a summary is of a pipeline that is asked for; its state is that of its last run."""
        wanted = self.conditions
        equal = all(
            getattr(wanted, name) in {None, getattr(item, name)}
            for name in ("pipeline_name", "environment", "pipeline_type")
        )
        equal = equal and wanted.state in {None, item.last_state}
        return equal and self.values["q"].lower() in (item.pipeline_name or "").lower()

    def url(self, path: str = "/", **changes: str) -> str:
        """The address with some of its fields changed."""
        fields = {name: value for name, value in (self.values | changes).items() if value}
        return path + ("?" + urlencode(fields) if fields else "")

    def export_url(self) -> str:
        """The address of the same runs as CSV."""
        fields = self.conditions.model_dump(mode="json", exclude_none=True)
        if self.values["q"]:
            fields["search"] = self.values["q"]
        return "/download/pipeline_info?" + urlencode({"format": "csv", **fields})


def _midnight(text: str) -> datetime:
    day = date.fromisoformat(text)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _timeline(rows: Sequence[RunRow]) -> list[list[Any]]:
    """What the chart draws: start, end (both in ms), pipeline, state, its tone, id, rows, why it failed."""
    bars: list[list[Any]] = []
    for row in rows:
        start = row.start_utc.timestamp() * 1000
        end = start + (row.elapsed_seconds or 0) * 1000
        state, name = row.state or "", row.pipeline_name or "(no name)"
        bars.append([start, end, name, state, tone(state), row.id, row.rowcount, row.failure])
    return bars


def _trends(rows: Sequence[RunRow]) -> dict[Signature, str]:
    values: dict[Signature, list[float]] = defaultdict(list)
    for row in rows:
        kept = values[_signature(row)]
        if len(kept) < TREND and row.elapsed_seconds is not None:
            kept.append(row.elapsed_seconds)
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


def routes(  # noqa: PLR0915 - one function a route
    repository: PipelineInfoRepository, lineage: LineageStore, settings: Settings, access: AccessControl
) -> APIRouter:
    """The pages over a store."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "number": number,
        "exact": exact,
        "seconds": seconds,
        "moment": moment,
        "tone": tone,
    }
    Reader = Annotated[Principal, Depends(access.require(security.READ, browser=True))]

    def page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
        content = templates.get_template(name).render(**values)
        return HTMLResponse(content, status_code=status, headers=HEADERS)

    @router.get("/")
    def home(request: Request, principal: Reader) -> Response:
        """Every pipeline and its latest runs."""
        query = _Query(request)
        summaries = visible(repository.get_pipelines_summary(), principal)
        wanted = query.filter(principal, summaries)
        rows = repository.list_runs(wanted, limit=WINDOW)
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
            signature=_signature,
            bars=_timeline(rows),
            rows=rows[:PAGE],
            more=_more(query, rows[:PAGE], has_more=len(rows) > PAGE),
            export_url=query.export_url(),
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
        found = repository.list_runs(wanted, limit=PAGE + 1, after=after)
        more = _more(query, found[:PAGE], has_more=len(found) > PAGE)
        return page("rows.html", rows=found[:PAGE], more=more, query=query)

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
        failure = failure_of(row["extra"])
        shown = {"ledger", "links", *(["failure"] if failure else [])}
        rest = {name: value for name, value in row["extra"].items() if name not in shown}
        extra = orjson.dumps(rest, option=orjson.OPT_INDENT_2).decode() if rest else ""
        return page(
            "run.html",
            query=_Query(request),
            run=row,
            state=state_of(row["extra"]),
            failure=failure,
            links=_links(row, settings),
            not_shown=flow.not_shown(row["extra"], lines),
            lines=[line for line in lines if table in {None, line.table}],
            tables=sorted({line.table for line in lines}),
            table=table,
            broken=sum(not line.closed for line in lines),
            picture={"nodes": picture.nodes, "links": picture.links},
            notes=picture.notes,
            extra=extra[:MOST_EXTRA],
            extra_cut=len(extra) > MOST_EXTRA,
        )

    @router.get("/lineage")
    def graph(request: Request, principal: Reader, node: str = "", retired: str = "") -> Response:
        """The graph of data sets and jobs, the part around one of them, or those that a text is found in."""
        asked = node = node.strip().replace("\x00", "")[:MOST_NODE]
        seen = seen_by(principal, settings, retired=bool(retired))
        found = explore(lineage, node or None, 20, seen)
        matches = []
        if node and not found.edges:
            found.nodes.clear()
            matches = search(lineage, node, seen)
            if len(matches) == 1:
                node, matches = matches[0].node, []
                found = explore(lineage, node, 20, seen)
        columns = lineage.columns_of(node, seen) if node.startswith("dataset:") else []
        # Told only when it would be seen: how many more there are among what is retired.
        everything = Seen(principal.environments)
        hidden = 0 if retired else _count(lineage, asked, everything) - _count(lineage, asked, seen)
        return page(
            "lineage.html",
            query=_Query(request),
            asked=asked,
            node=node,
            matches=matches,
            names=sorted(one.node for one in lineage.find([], NAMES, seen)),
            picture=drawn(found),
            columns=columns[:500],
            columns_cut=max(0, len(columns) - 500),
            label=label,
            retired=bool(retired),
            hidden=hidden,
            days=settings.lineage_days,
            node_url=lambda name: _lineage_url(name, retired),
        )

    return router


def _count(lineage: LineageStore, text: str, seen: Seen) -> int:
    return len(lineage.find(text.lower().split(), NAMES, seen))


def _lineage_url(node: str, retired: str) -> str:
    return "/lineage?" + urlencode({"node": node} | ({"retired": "1"} if retired else {}))


def _more(query: _Query, shown: Sequence[RunRow], *, has_more: bool) -> str | None:
    """The address of the rows after those shown."""
    return query.url("/rows", cursor=shown[-1].cursor().encode()) if has_more and shown else None
