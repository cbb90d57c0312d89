"""What `make compose-verify` is made of, as far as it needs no engine; the command itself runs on demand."""

import fcntl
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.compose_env import demanded
from scripts.stack.debian import mirror
from scripts.verify import engine
from scripts.verify.compose import PORT_OFFSET, gigabytes, needed, write_environment
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


def test_a_service_brings_the_images_of_those_that_it_waits_for() -> None:
    own, others = needed(["consumer"])
    assert [image_name(file) for file in own] == ["tallyhouse-consumer"]
    assert {repository(name) for name in others} == {
        "python",
        "redpandadata/redpanda",
        "clickhouse/clickhouse-server",
    }
    assert needed([]) == (dockerfiles(), foreign())


def test_memory_is_read_as_the_engine_says_it() -> None:
    assert gigabytes("1.5GiB / 3GiB") == pytest.approx(1.61, abs=0.01)
    assert gigabytes("512MiB / 1GiB") == pytest.approx(0.537, abs=0.001)
    with pytest.raises(engine.EngineError, match="docker stats"):
        gigabytes("-- / --")


def test_two_do_not_share_a_folder(tmp_path: Path) -> None:
    data = tmp_path / "verify"
    with (tmp_path / ".verify.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            pytest.raises(engine.EngineError, match="another one uses"),
            engine.engine(tmp_path, data, keep=False),
        ):
            pytest.fail("it started")
    assert data.is_dir(), "it is the other one's"


def test_control_groups_go_with_all_below_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "GROUPS", tmp_path)
    for folder in ("ours/a/b", "cpu/ours/c", "cpu/theirs", "memory/theirs"):
        (tmp_path / folder).mkdir(parents=True)
    engine.remove_groups("ours")
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"cpu", "cpu/theirs", "memory", "memory/theirs"}


def test_debians_packages_come_from_where_the_machines_do() -> None:
    assert mirror().startswith("http")
