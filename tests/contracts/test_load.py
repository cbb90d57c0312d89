from dataclasses import replace
from pathlib import Path

import pytest

from tallyhouse.contracts import Kind, load_pipeline, load_source
from tallyhouse.contracts import load as loading
from tallyhouse.contracts.load import OVERLAYS, REPOSITORY

SOURCES = sorted(path.stem for path in OVERLAYS.glob("*.yaml"))


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_names_every_table_of_its_dbml_once(name: str) -> None:
    source = load_source(name)
    dbml = next((REPOSITORY / "docs" / "db").glob(f"{name}_*.dbml")).read_text(encoding="utf-8")
    declared = [line.split()[1] for line in dbml.splitlines() if line.startswith("Table ")]
    assert sorted(table.name for table in source.tables) == sorted(declared)


def test_children_are_extracted_before_their_parents() -> None:
    for name in SOURCES:
        source = load_source(name)
        order = [table.name for table in source.tables]
        dbml = next((REPOSITORY / "docs" / "db").glob(f"{name}_*.dbml")).read_text(encoding="utf-8")
        child = ""
        for line in dbml.splitlines():
            if line.startswith("Table "):
                child = line.split()[1]
            if "ref: >" in line:
                parent = line.split("ref: >")[1].split(".")[0].strip()
                assert order.index(child) <= order.index(parent), f"{name}: {child} refers to {parent}"


def test_composite_keys_and_cursors_are_read() -> None:
    assert load_source("catalog").table("inventory").key == ("product_id", "warehouse_code")
    assert load_source("orders").table("orders").cursor == "updated_at"
    assert load_source("pancake").table("pancakes").cursor is None
    assert load_source("orders").table("orders").column("total").type.kind is Kind.DECIMAL


def test_a_contract_that_names_what_is_not_there_is_refused() -> None:
    table = load_source("orders").table("orders")
    for wrong in (
        replace(table, pii=("shoe_size",)),
        replace(table, cursor="shoe_size"),
        replace(table, cursor="status"),
        replace(table, key=()),
        replace(table, control_totals=("status",)),
        replace(table, name="orders; DROP TABLE x"),
        replace(table, on_bad_value="ignore"),
        replace(table, columns=tuple(replace(column, nullable=True) for column in table.columns)),
    ):
        with pytest.raises(ValueError, match=r"^orders\.orders"):
            wrong.validate()


def test_the_version_changes_with_the_contract() -> None:
    table = load_source("orders").table("orders")
    assert replace(table, cursor=None).version != table.version
    assert replace(table).version == table.version


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ValueError, match=r"no source contract 'order'; there are: auth, catalog"):
        load_source("order")
    with pytest.raises(ValueError, match=r"no pipeline 'x'; there are: events, pancake, techmarket"):
        load_pipeline("x")


def test_an_overlay_that_disagrees_with_its_dbml_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = (OVERLAYS / "payments.yaml").read_text(encoding="utf-8").replace("  refunds:", "  refnds:")
    (tmp_path / "payments.yaml").write_text(overlay, encoding="utf-8")
    monkeypatch.setattr(loading, "OVERLAYS", tmp_path)
    with pytest.raises(ValueError, match=r"refnds, refunds not in both"):
        loading.load_source.__wrapped__("payments")
