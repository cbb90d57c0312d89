"""What `make compose-verify` is made of, as far as it needs no engine; the command itself runs on demand."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.compose_env import demanded
from scripts.stack.debian import mirror
from scripts.verify import engine
from scripts.verify.compose import PORT_OFFSET, write_environment
from scripts.verify.images import STAND_INS, dockerfiles, foreign, image_name, repository, stand_in
from tallyhouse.settings import ROOT, STACK_ENV

COMPOSE: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]


def test_every_image_of_others_has_a_stand_in_and_every_stand_in_is_of_one() -> None:
    names = foreign()
    assert {"python", "mysql", "clickhouse/clickhouse-server"} <= {repository(name) for name in names}
    assert {stand_in(name) for name in names} == set(STAND_INS.glob("*.Dockerfile"))
    listed = re.findall(r"^\| `([\w/-]+)`", (STAND_INS / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted({repository(name) for name in names})


def test_an_image_is_called_what_compose_calls_it() -> None:
    called = {
        image_name(ROOT / service["build"]["dockerfile"]): service["image"]
        for service in COMPOSE.values()
        if "build" in service
    }
    assert called
    assert all(made == named for made, named in called.items())
    # Every other one is a job's, which Compose does not run.
    assert {image_name(file) for file in dockerfiles()} - set(called) == {"tallyhouse-fetch-kaggle"}


@pytest.mark.parametrize("script", sorted(STAND_INS.glob("*.sh")), ids=lambda script: script.name)
def test_a_start_script_is_read_by_its_shell(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


def test_the_project_has_passwords_and_ports_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PORT_OFFSET", raising=False)
    told = write_environment(tmp_path / "compose.env")
    assert set(demanded((ROOT / "docker-compose.yaml").read_text())) <= set(told)
    stack = dict(re.findall(r"^(\w+_PORT)=(\d+)$", STACK_ENV.read_text(), re.MULTILINE))
    assert {name: int(told[name]) for name in stack} == {
        name: int(port) + PORT_OFFSET for name, port in stack.items()
    }
    assert told["PORT_OFFSET"] == "0"
    assert (tmp_path / "compose.env").stat().st_mode & 0o777 == 0o600


def test_rules_of_others_are_put_back_and_tables_that_were_not_there_are_emptied() -> None:
    theirs = "*filter\n:INPUT DROP [1:2]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n"
    restored = engine.restoring(theirs)
    assert restored.startswith(theirs)
    assert re.findall(r"^\*(\w+)$", restored, re.MULTILINE) == ["filter", "nat"]
    assert "-A" not in restored.removeprefix(theirs)


def test_debians_packages_come_from_where_the_machines_do() -> None:
    assert mirror().startswith("http")
