"""The workflows name what is there; that they are workflows, `make check` says, by actionlint."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tallyhouse.settings import ROOT

FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github").glob("**/*.yml"))


def jobs() -> dict[str, dict[str, Any]]:
    return {
        f"{file.stem}/{name}": job
        for file in FILES
        for name, job in yaml.safe_load(file.read_text())["jobs"].items()
    }


def commands() -> list[str]:
    return [step["run"] for job in jobs().values() for step in job["steps"] if "run" in step]


def test_every_image_is_built() -> None:
    built = {one["file"] for one in jobs()["ci/image"]["strategy"]["matrix"]["include"]}
    patterns = ("services/*/Dockerfile", "jobs/*/Dockerfile", "infrastructure/docker/*.Dockerfile")
    there = [file for pattern in patterns for file in ROOT.glob(pattern)]
    assert built == {str(file.relative_to(ROOT)) for file in there}


def test_every_target_of_make_and_every_file_is_there() -> None:
    text = "\n".join(commands())
    targets = set(re.findall(r"^([a-z0-9-]+(?: [a-z0-9-]+)*):", (ROOT / "Makefile").read_text(), re.M))
    known = {name for names in targets for name in names.split()}
    for words in re.findall(r"\bmake ([a-z][a-z0-9-]*(?: [a-z][a-z0-9-]*)*)", text):
        assert set(words.split()) <= known, words
    for path in re.findall(r"(?<![\w/.-])(?:\.ci|ci|scripts|infrastructure|tools)/[\w./-]+", text):
        assert (ROOT / path).exists(), path


def test_the_services_of_the_smoke_test_are_composes() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    (up,) = [command for command in commands() if command.startswith("docker compose up")]
    named = [word for word in up.split()[3:] if not word.startswith("--")]
    assert set(named) <= set(services)
    assert {"ingest", "minio", "redpanda", "postgres"} <= set(named)


@pytest.mark.parametrize("name", jobs())
def test_a_job_ends_in_time_and_may_only_read(name: str) -> None:
    assert jobs()[name]["timeout-minutes"] <= 90
    workflow = yaml.safe_load((ROOT / f".github/workflows/{name.split('/', maxsplit=1)[0]}.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("file", ACTIONS, ids=lambda file: file.name)
def test_an_action_is_pinned_by_commit_and_says_its_version(file: Path) -> None:
    for used in re.findall(r"uses: (.+)", file.read_text()):
        assert used.startswith("./") or re.fullmatch(r"[\w/.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used


def test_one_action_is_pinned_to_one_commit() -> None:
    used = {found for file in ACTIONS for found in re.findall(r"uses: ([\w/.-]+@\w+)", file.read_text())}
    names = [one.partition("@")[0] for one in used]
    assert sorted(names) == sorted(set(names))
