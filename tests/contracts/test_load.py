from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tallyhouse.contracts import Column, Kind, Policy, TableContract, load_pipeline, load_source
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
        with_policy(table, "id", "null"),
        with_policy(table, "updated_at", "null"),
        with_policy(table, "total", "null"),
        with_policy(table, "ordered_at", {"sentinel": "1900-01-32 00:00:00"}),
        replace(table, columns=tuple(replace(column, nullable=True) for column in table.columns)),
    ):
        with pytest.raises(ValueError, match=r"^orders\.orders"):
            wrong.validate()


def with_policy(table: TableContract, name: str, policy: Any) -> TableContract:
    said = Policy.parse(policy)
    changed = (replace(one, on_bad_value=said) if one.name == name else one for one in table.columns)
    return replace(table, columns=tuple(changed))


def test_a_policy_is_of_a_column_or_of_all_that_need_not_be_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = (OVERLAYS / "payments.yaml").read_text(encoding="utf-8")
    monkeypatch.setattr(loading, "OVERLAYS", tmp_path)

    def policies(said: str) -> dict[str, Column]:
        (tmp_path / "payments.yaml").write_text(
            overlay.replace("on_bad_value: error", f"on_bad_value: {said}"), encoding="utf-8"
        )
        load_source.cache_clear()
        return {column.name: column for column in load_source("payments").table("payments").columns}

    try:
        found = policies("null")
        assert found["status"].on_bad_value == Policy("null")
        assert found["status"].nullable  # ods must take what the policy puts there
        assert not any(found[name].replaces for name in ("id", "updated_at", "amount"))
        with pytest.raises(ValueError, match=r"payments\.\w+: on_bad_value names \['nothing'\]"):
            policies("{nothing: null}")
        with pytest.raises(ValueError, match="`quarantine` has no store yet"):
            policies("quarantine")
        with pytest.raises(ValueError, match="on_bad_value 'ignore' is not error, null"):
            policies("ignore")
    finally:
        load_source.cache_clear()


def test_the_version_changes_with_the_contract() -> None:
    table = load_source("orders").table("orders")
    assert replace(table, cursor=None).version != table.version
    assert replace(table).version == table.version


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ValueError, match=r"no source contract 'order'; there are: auth, catalog"):
        load_source("order")
    with pytest.raises(ValueError, match=r"no pipeline 'x'; there are: events, kaggle, pancake, techmarket"):
        load_pipeline("x")


def test_an_overlay_that_disagrees_with_its_dbml_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = (OVERLAYS / "payments.yaml").read_text(encoding="utf-8").replace("  refunds:", "  refnds:")
    (tmp_path / "payments.yaml").write_text(overlay, encoding="utf-8")
    monkeypatch.setattr(loading, "OVERLAYS", tmp_path)
    with pytest.raises(ValueError, match=r"refnds, refunds not in both"):
        loading.load_source.__wrapped__("payments")
