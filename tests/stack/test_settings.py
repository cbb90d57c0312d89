"""Where settings come from, which wins, and what a wrong one is told."""

import json
import os
from pathlib import Path

import pytest

from tallyhouse import settings as module
from tallyhouse.settings import ROOT, STACK_ENV, LocalFolder, Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def secrets_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No settings in the environment; the passwords that were made are in a file of the test's own."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    file = tmp_path / "secrets.json"
    file.write_text(json.dumps({name: f"made for {name}" for name in Settings.generated()}))
    monkeypatch.setattr(LocalFolder, "secrets_file", file)
    return file


@pytest.fixture
def dot_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / ".env"
    monkeypatch.setattr(module, "DOT_ENV", file)
    monkeypatch.setitem(Settings.model_config, "env_file", (STACK_ENV, file))
    return file


def test_defaults_are_the_committed_ones(dot_env: Path) -> None:
    found = load_settings()
    assert (found.mysql_auth_port, found.postgres_port, found.airflow_port) == (3306, 5432, 8080)
    assert found.local == ROOT / ".local"


def test_dot_env_wins_over_defaults_and_the_environment_over_both(
    dot_env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dot_env.write_text("POSTGRES_PORT=15432\nAIRFLOW_PORT=18080\n")
    monkeypatch.setenv("AIRFLOW_PORT", "28080")
    found = load_settings()
    assert (found.postgres_port, found.airflow_port, found.mysql_auth_port) == (15432, 28080, 3306)


def test_the_offset_moves_every_port_once(dot_env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_settings()
    monkeypatch.setenv("PORT_OFFSET", "100")
    moved = load_settings()
    for name in Settings.ports():
        assert getattr(moved, name) == getattr(plain, name) + 100
    for key, value in moved.environment().items():
        monkeypatch.setenv(key, value)
    again = load_settings()  # as a child process reads it
    assert all(getattr(again, name) == getattr(moved, name) for name in Settings.ports())


def test_a_made_password_is_read_and_one_that_is_set_wins(
    dot_env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().postgres_password == "made for POSTGRES_PASSWORD"
    dot_env.write_text("POSTGRES_PASSWORD=of the file\n")
    assert load_settings().postgres_password == "of the file"
    monkeypatch.setenv("POSTGRES_PASSWORD", "of the environment")
    assert load_settings().postgres_password == "of the environment"


def test_only_the_passwords_that_documents_print_are_committed() -> None:
    fixed = {name.upper() for name in Settings.model_fields if name.endswith("_password")}
    assert fixed - set(Settings.generated()) == {"MYSQL_AUTH_PASSWORD", "DWH_DOCUMENTED_PASSWORD"}


def test_without_passwords_one_line_says_what_makes_them(dot_env: Path, secrets_file: Path) -> None:
    secrets_file.unlink()
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert "POSTGRES_PASSWORD" in str(raised.value)
    assert "'make setup' makes every password" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("POSTGRES_PORT=many", "POSTGRES_PORT: Input should be a valid integer"),
        ("PORT_OFFSET=70000", "is not a port"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(dot_env: Path, line: str, said: str) -> None:
    dot_env.write_text(line + "\n")
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert said in str(raised.value)
    assert "config/stack.env" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_every_key_of_the_file_is_a_setting_or_of_compose() -> None:
    lines = [line for line in STACK_ENV.read_text().splitlines() if line and not line.startswith("#")]
    keys = {line.partition("=")[0].lower() for line in lines}
    compose = {
        "clickhouse_native_port",
        "spark_master_port",
        "spark_master_ui_port",
        "adminer_port",
        "grafana_port",
    }
    assert keys - set(Settings.model_fields) == compose


def test_the_environment_is_not_changed_by_reading(dot_env: Path) -> None:
    before = dict(os.environ)
    load_settings()
    assert dict(os.environ) == before
