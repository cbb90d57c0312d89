"""Data Docs in the lake: one small site per run, and one page that lists the runs.

Great Expectations' own index reads all results of all runs each time it is built. A site per run costs the
same for every run, and the sites of past runs are never touched. What the sites share is stored once.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext

from tallyhouse.lake import Lake

PREFIX = "data-docs"
LISTED = 60
"""Runs on the index page; older sites stay where they are."""

_SITE = "run"
_REPORT = re.compile(r"report/(?P<pipeline>[^/]+)/run=(?P<run_id>[^/]+)/quality\.json")
# The pages would load styles, scripts and a logo from other people's servers when they are opened.
_REMOTE = re.compile(
    r"<script[^>]*\bsrc=\"https?://[^>]*></script>"
    r"|<link[^>]*\bhref=\"https?://[^>]*>"
    r"|<img[^>]*\bsrc=\"https?://[^>]*>"
)
_REMOTE_IMAGE = re.compile(r"url\([\"']?https?://[^)]*\)")
_STATIC = re.compile(r"(?<=[\"'(])[./]*static/images/")
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Site:
    """A run's Data Docs.

    Attributes:
        pipeline: Such as `techmarket`.
        run_id: The run.
    """

    pipeline: str
    run_id: str

    @property
    def key(self) -> str:
        """Folder of the site in the lake."""
        return f"{PREFIX}/{self.pipeline}/{self.run_id}"

    def publish(self, context: EphemeralDataContext, lake: Lake, suites: dict[str, dict[str, Any]]) -> str:
        """Builds the site of what the context has validated and puts it into the lake.

        Args:
            context: What ran the suites.
            lake: Where to.
            suites: What `quality.json` says of each table's suite, by the table's name.

        Returns:
            The path of its first page below the address that serves the Data Docs.
        """
        with tempfile.TemporaryDirectory() as folder:
            context.add_data_docs_site(_SITE, _configuration(folder))  # type: ignore[arg-type] # lacks sections
            context.build_data_docs(site_names=[_SITE])
            root = Path(folder)
            found = {
                page.relative_to(root).as_posix(): page.read_text("utf-8") for page in root.rglob("*.html")
            }
        pages = {name: _own(page, name) for name, page in found.items()}
        pages["index.html"] = self._first_page(suites, set(pages))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: _put(lake, f"{self.key}/{name}", pages[name]), pages))
        _put_shared(lake)
        return f"/{self.pipeline}/{self.run_id}/index.html"

    def _first_page(self, suites: dict[str, dict[str, Any]], pages: set[str]) -> str:
        """The list of suites; Great Expectations' own is drawn by a script from another server."""
        rows = []
        for name, suite in suites.items():
            folder = f"validations/{name.replace('.', '/')}/"
            count = len(suite["failed"])
            rows.append(
                {
                    "name": name,
                    "link": next((page for page in sorted(pages) if page.startswith(folder)), None),
                    "cells": [f"{suite['rows']:,}"],
                    "success": suite["success"],
                    "verdict": (f"{count} failed" if count else "passed") if suite["rows"] else "no rows",
                }
            )
        return _page(
            self.run_id,
            f"Great Expectations suites of {self.pipeline} over this run's raw batches.",
            "../../",
            ["Table", "Rows", "Verdict"],
            rows,
            [
                {
                    "table": name,
                    "rule": f"{one['expectation']}({one['column']})",
                    "count": one["unexpected"],
                    "sample": one["sample"],
                    "rows": one["rows"],
                }
                for name, suite in suites.items()
                for one in suite["failed"]
            ],
        )


def write_index(lake: Lake) -> None:
    """Writes the page that lists the newest runs of all pipelines, by their reports."""
    keys = [match for key in lake.keys("report") if (match := _REPORT.fullmatch(key))]
    # By the time in the run id, whatever the pipeline.
    keys.sort(key=lambda match: match["run_id"].removeprefix(f"{match['pipeline']}-"), reverse=True)
    rows = [_run_row(match["pipeline"], match["run_id"], lake.read_json(match[0])) for match in keys[:LISTED]]
    page = _page(
        "Data Docs",
        f"What Great Expectations found in the raw batches of each run; the newest {LISTED} runs.",
        "",
        ["Run", "Pipeline", "Tables with rows", "Rows", "Verdict"],
        rows,
    )
    _put(lake, f"{PREFIX}/index.html", page)


def _run_row(pipeline: str, run_id: str, report: dict[str, Any]) -> dict[str, Any]:
    suites = report["suites"]
    failed = [name for name, suite in suites.items() if not suite["success"]]
    return {
        "name": run_id,
        "link": f"{pipeline}/{run_id}/index.html",
        "cells": [
            pipeline,
            f"{sum(1 for suite in suites.values() if suite['rows'])} of {len(suites)}",
            f"{sum(suite['rows'] for suite in suites.values()):,}",
        ],
        "success": report["success"],
        "verdict": f"failed: {', '.join(failed)}" if failed else "passed",
    }


def _page(
    title: str,
    lead: str,
    root: str,
    head: list[str],
    rows: list[dict[str, Any]],
    failed: Sequence[dict[str, Any]] = (),
) -> str:
    template = jinja2.Template(
        (_FOLDER / "index.html.j2").read_text("utf-8"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return str(template.render(title=title, lead=lead, root=root, head=head, rows=rows, failed=failed))


def _configuration(folder: str) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": folder},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", "show_cta_footer": False},
        # Their word for leaving a section out.
        "site_section_builders": {"profiling": "None"},
    }


def _own(page: str, name: str) -> str:
    """A page that needs nobody else's server, and finds what is shared two folders above its site."""
    static = "../" * (name.count("/") + 2) + "static/"
    own = f'<link rel="stylesheet" href="{static}pages.css">\n<script defer src="{static}pages.js"></script>'
    page = _REMOTE_IMAGE.sub("none", _REMOTE.sub("", page))
    page = _STATIC.sub(static, page)
    return page.replace("</head>", f"{own}\n</head>", 1)


def _put_shared(lake: Lake) -> None:
    """What all sites share; once, and again when a new version changes it."""
    icon = Path(str(files("great_expectations"))) / "render" / "view" / "static" / "images" / "favicon.ico"
    shared = {path.name: path.read_bytes() for path in (icon, _FOLDER / "pages.css", _FOLDER / "pages.js")}
    digest = hashlib.sha256(b"".join(shared.values())).hexdigest()[:12]
    marker = f"{PREFIX}/static/version-{digest}"
    if marker not in lake.keys(f"{PREFIX}/static"):
        for name, content in shared.items():
            _put(lake, f"{PREFIX}/static/{name}", content)
        _put(lake, marker, b"")


def _put(lake: Lake, key: str, content: str | bytes) -> None:
    with lake.create(key) as sink:
        sink.write(content.encode() if isinstance(content, str) else content)
