"""What runbooks and guides tell people to type is there: targets, modules, scripts, releases, links."""

import importlib.util
import re
from pathlib import Path

import pytest

from scripts import charts
from tallyhouse.settings import ROOT

PAGES = [
    *sorted((ROOT / "docs/runbooks").glob("*.md")),
    *(
        ROOT / "docs" / name
        for name in ("CLOUD_ARCHITECTURE.md", "K8S_TESTING_STRATEGY.md", "PRODUCTION_READINESS.md")
    ),
    *(ROOT / "docs/guides" / name for name in ("new_service.md", "kubernetes.md", "databases.md")),
    *sorted((ROOT / "infrastructure").rglob("README.md")),
]


def commands(page: Path) -> list[str]:
    """Code between backticks, and lines of consoles, continued lines and all."""
    text = page.read_text().replace("\\\n", " ")
    spans = re.findall(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.S))
    lines = [
        line.strip()
        for block in re.findall(r"```console\n(.*?)```", text, re.S)
        for line in block.splitlines()
    ]
    return [" ".join(span.split()) for span in spans] + [line.removeprefix("$ ") for line in lines]


def targets(makefile: Path) -> set[str]:
    found = re.findall(r"^([a-z][a-z0-9 -]*):(?!=)", makefile.read_text(), re.M)
    return {name for names in found for name in names.split()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_tells_to_type_is_there(page: Path) -> None:
    local_env = "infrastructure/local-env" in str(page)
    cluster = targets(ROOT / "infrastructure/local-env/Makefile")
    known = targets(ROOT / "Makefile") | (cluster if local_env else set())
    releases = {release.name for release in charts.releases("local")}
    for command in commands(page):
        bare = re.sub(r'"[^"]*"|<[^>]*>', "", command)
        for words in re.findall(r"(?:^|[\s(])make((?: +[^\s;|]+)+)", bare):
            for word in words.split("#")[0].split():
                if re.fullmatch(r"[a-z][a-z0-9-]*", word):
                    assert word in (cluster if "-C infrastructure/local-env" in command else known), command
        for module in re.findall(r"-m ((?:scripts|services|tallyhouse|techmarket)[\w.]*)", command):
            assert importlib.util.find_spec(module) is not None, command
        for script in re.findall(
            r"(?:^|\s)((?:scripts|infrastructure)/[\w./-]+\.(?:sh|yaml|yml|gotmpl))", command
        ):
            assert (ROOT / script).exists(), command
        if found := re.search(r"scripts\.charts (?:install|template) \S+((?: [a-z][a-z-]+)*)", command):
            assert set(found[1].split()) <= releases | {"greeter"}, command
        if found := re.search(r"helm (?:history|rollback|get manifest) ([a-z-]+)", command):
            assert found[1] in releases, command


def test_pages_are_there_and_tell_something() -> None:
    assert len(PAGES) > 12
    assert sum(len(commands(page)) for page in PAGES) > 100
