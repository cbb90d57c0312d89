"""Builds the documentation site, and fails on a link that leads nowhere.

    python -m scripts.site

The pages are the Markdown files that git tracks, at their own places; what they link to beside them (a
DAG, a picture) is copied along. So a link is right on the site exactly when it is right in the repository.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tallyhouse.settings import ROOT

PAGES = ROOT / "build" / "site-pages"
LEFT_OUT = (".github/",)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)|\bsrc=\"([^\"]+)\"")


def gather() -> None:
    """Copy the pages and what they link to into the folder that MkDocs reads."""
    shutil.rmtree(PAGES, ignore_errors=True)
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    for name in filter(None, tracked):
        if name.startswith(LEFT_OUT):
            continue
        page = ROOT / name
        copy(page)
        for found in LINK.finditer(page.read_text(encoding="utf-8")):
            target = found.group(1) or found.group(2)
            if "://" in target or target.startswith(("mailto:", "<")):
                continue
            beside = (page.parent / target).resolve()
            if beside.is_file() and beside.is_relative_to(ROOT):
                copy(beside)


def copy(file: Path) -> None:
    """Put one file at its own place below the site's pages."""
    there = PAGES / file.relative_to(ROOT)
    there.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, there)


def main() -> int:
    """Build the site.

    Returns:
        MkDocs' exit code; not 0 where a link leads nowhere.
    """
    gather()
    # Not --quiet: with it, warnings are not counted, and a link that leads nowhere would pass.
    built = subprocess.run(
        [str(Path(sys.executable).parent / "mkdocs"), "build", "--strict"],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if built.returncode:
        print(built.stdout)
    else:
        print(ROOT / "build" / "site" / "index.html")
    return built.returncode


if __name__ == "__main__":
    sys.exit(main())
