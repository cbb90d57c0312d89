"""Secrets are made once; those that a newer version needs are added to what is there."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.stack.context import Stack, make_secrets
from tallyhouse.settings import Settings


def test_two_first_commands_agree(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(make_secrets, [tmp_path / "secrets.json"] * 8))
    assert all(one == found[0] for one in found)
    assert set(Settings.generated()) <= found[0].keys()


def local(folder: Path) -> Settings:
    return Stack().settings.model_copy(update={"tallyhouse_local": folder})


def test_secrets_stay_and_new_ones_are_added(tmp_path: Path):
    made = Stack(local(tmp_path)).secrets
    file = tmp_path / "secrets.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert Stack(local(tmp_path)).secrets == made
    older = {name: value for name, value in made.items() if not name.startswith("SUPERSET")}
    file.write_text(json.dumps(older))
    newer = Stack(local(tmp_path)).secrets
    assert newer.keys() == made.keys()
    assert {name: newer[name] for name in older} == older
    assert newer["SUPERSET_SECRET_KEY"] != made["SUPERSET_SECRET_KEY"]
    assert json.loads(file.read_text()) == newer


def test_a_pod_of_a_cluster_takes_its_secrets_from_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Else each pod would make a key of its own, and none could read what another one has encrypted."""
    monkeypatch.setenv("FERNET_KEY", "of the cluster")
    monkeypatch.setenv("AIRFLOW_ADMIN_PASSWORD", "of the cluster, too")
    assert make_secrets(tmp_path / "secrets.json")["FERNET_KEY"] != "of the cluster"
    monkeypatch.setenv("TALLYHOUSE_RENDER", "1")
    found = make_secrets(tmp_path / "secrets.json")
    assert found["FERNET_KEY"] == "of the cluster"
    assert found["AIRFLOW_ADMIN_PASSWORD"] == "of the cluster, too"
    assert "of the cluster" not in (tmp_path / "secrets.json").read_text()
