"""Files that are written from definitions are current, and JSON Schema takes what Pydantic takes."""

import json
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from tallyhouse.contracts.load import model_files
from tallyhouse.models import pages
from tallyhouse.models.__main__ import check, draft, main
from tallyhouse.models.drift import Change


def test_what_is_written_from_definitions_is_current() -> None:
    assert check() == []


def test_a_file_that_is_out_of_date_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = pages.REPOSITORY / "docs" / "reference" / "warehouse.md"
    other = {page: page.read_text(encoding="utf-8").replace("fact_payment", "fact_paiment", 1)}
    monkeypatch.setattr(pages, "files", lambda: other)
    assert "docs/reference/warehouse.md is out of date" in check()[0]
    assert main(["check"]) == 1


@pytest.mark.parametrize("name", sorted(model_files()))
def test_the_json_schema_takes_every_definition(name: str) -> None:
    validator = jsonschema_rs.validator_for(json.loads(pages.schema()))
    content = yaml.safe_load(model_files()[name].read_text(encoding="utf-8"))
    assert [str(error) for error in validator.iter_errors(content)] == []
    assert not validator.is_valid(content | {"sort_key": ["x"]})


def test_a_draft_is_the_next_number_with_its_revision(tmp_path: Path) -> None:
    (tmp_path / "0007_before.py").touch()
    changes = [
        Change("dwh.x is missing", ("CREATE TABLE dwh.x (id integer)", "CREATE INDEX x ON dwh.x (id)"))
    ]
    script, revision = draft(tmp_path, "add_x", [*changes, Change("y", ("DROP TABLE dwh.y",), loses=True)])
    assert script.name == "0008_add_x.sql"
    assert "CREATE INDEX x ON dwh.x (id);" in script.read_text(encoding="utf-8")
    assert "DATA IS LOST HERE" in script.read_text(encoding="utf-8")
    assert 'revision = "0008"\ndown_revision = "0007"' in revision.read_text(encoding="utf-8")
