"""Data Docs in the lake: one small site a run, and one page that lists the runs.

Great Expectations' own index reads every result there ever was each time it is built; a site a run
costs the same every night, and past runs are never touched. What the sites share lies beside them once.
"""

from __future__ import annotations

import hashlib
import html
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext

from tallyhouse.lake import Lake

PREFIX = "data-docs"
LISTED = 60
"""Runs on the index page; older sites stay where they are."""

_SITE = "run"
_REPORT = re.compile(r"report/(?P<subject>[^/]+)/run=(?P<run_id>[^/]+)/quality\.json")
# The pages would load styles and scripts from other people's servers when they are opened.
_REMOTE = re.compile(r"<script[^>]*\bsrc=\"https?://[^>]*></script>|<link[^>]*\bhref=\"https?://[^>]*>")
_STATIC = re.compile(r"(?<=[\"'(])((?:\.{1,2}/)*)static/")


@dataclass(frozen=True)
class Site:
    """A run's Data Docs.

    Attributes:
        subject: Such as `techmarket`.
        run_id: The run.
    """

    subject: str
    run_id: str

    @property
    def key(self) -> str:
        """Folder of the site in the lake."""
        return f"{PREFIX}/{self.subject}/{self.run_id}"

    def publish(self, context: EphemeralDataContext, lake: Lake) -> str:
        """Builds the site of what the context has validated and puts it into the lake.

        Returns:
            The path of its first page below the address that serves the Data Docs.
        """
        with tempfile.TemporaryDirectory() as folder:
            context.add_data_docs_site(_SITE, _configuration(folder))  # type: ignore[arg-type] # its type forgets sections
            context.build_data_docs(site_names=[_SITE])
            root = Path(folder)
            pages = {
                path.relative_to(root).as_posix(): path.read_text("utf-8") for path in root.rglob("*.html")
            }
        prepared = {f"{self.key}/{name}": _own(page, name) for name, page in pages.items()}
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: _put(lake, *item), prepared.items()))
        _put_shared(lake)
        return f"/{self.subject}/{self.run_id}/index.html"


def write_index(lake: Lake) -> None:
    """Writes the page that lists the newest runs of all subjects, by their reports."""
    keys = [match for key in lake.keys("report") if (match := _REPORT.fullmatch(key))]
    # By the time in the run id, whatever the subject.
    keys.sort(key=lambda match: match["run_id"].removeprefix(f"{match['subject']}-"), reverse=True)
    rows = [
        _index_row(match["subject"], match["run_id"], lake.read_json(match[0])) for match in keys[:LISTED]
    ]
    page = (files("tallyhouse.quality") / "index.html").read_text("utf-8")
    _put(lake, f"{PREFIX}/index.html", page.replace("<!-- runs -->", "\n".join(rows)))


def _index_row(subject: str, run_id: str, report: dict[str, Any]) -> str:
    suites = report["suites"].values()
    failed = [name for name, suite in report["suites"].items() if not suite["success"]]
    verdict = "passed" if report["success"] else f"failed: {', '.join(failed)}"
    link = html.escape(f"{subject}/{run_id}/index.html")
    cells = (
        f'<a href="{link}">{html.escape(run_id)}</a>',
        html.escape(subject),
        f"{sum(1 for suite in suites if suite['rows'])} of {len(report['suites'])}",
        f"{sum(suite['rows'] for suite in suites):,}",
        f'<span class="{"passed" if report["success"] else "failed"}">{html.escape(verdict)}</span>',
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


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
    depth = name.count("/")
    style = f'<link rel="stylesheet" href="{"../" * (depth + 2)}static/pages.css">'
    page = _STATIC.sub(r"\1../../static/", _REMOTE.sub("", page))
    return page.replace("</head>", f"{style}\n</head>", 1)


def _put_shared(lake: Lake) -> None:
    """Styles and images of all sites; once, unless they changed with a new version."""
    theirs = Path(str(files("great_expectations"))) / "render" / "view" / "static"
    shared = {
        f"{PREFIX}/static/{path.relative_to(theirs).as_posix()}": path.read_bytes()
        for pattern in ("styles/*.css", "images/*logo*", "images/favicon.ico")
        for path in theirs.glob(pattern)
    }
    shared[f"{PREFIX}/static/pages.css"] = (files("tallyhouse.quality") / "pages.css").read_bytes()
    digest = hashlib.sha256(b"".join(shared[key] for key in sorted(shared))).hexdigest()[:12]
    marker = f"{PREFIX}/static/version-{digest}"
    if marker not in lake.keys(f"{PREFIX}/static"):
        for key, content in {**shared, marker: b""}.items():
            _put(lake, key, content)


def _put(lake: Lake, key: str, content: str | bytes) -> None:
    with lake.create(key) as sink:
        sink.write(content.encode() if isinstance(content, str) else content)
