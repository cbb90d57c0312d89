"""Secrets are made once; those that a newer version needs are added to what is there."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
