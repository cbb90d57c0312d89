"""What is decided of names and values, without any server."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from tallyhouse.contracts import ColumnType
from tallyhouse.contracts.load import read_source
from tallyhouse.contracts.model import IDENTIFIER
from tallyhouse.source import drafts, personal
from tallyhouse.source.catalogue import (
    Catalogue,
    CatalogueColumn,
    CatalogueTable,
    UniqueIndex,
    children_first,
)
from tallyhouse.source.judge import judge
from tallyhouse.source.names import plain_name, plain_names
from tallyhouse.source.profile import ColumnProfile, TableProfile


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("orderNumber", "order_number"),
        ("order-items", "order_items"),
        ("HTTPServer", "http_server"),
        ("with a  space", "with_a_space"),
        ("Été", "ete"),
        ("2026", "c_2026_158a323a"),
        ("order", "order"),
        ("'; DROP TABLE x; --", "drop_table_x"),
    ],
)
def test_any_name_becomes_a_plain_one(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_no_two_names_meet_and_given_ones_stay() -> None:
    long = ["a" * 64, "a" * 63 + "b", "замовлення", "клієнт"]
    names = plain_names(["orderNumber", "order_number", "order-number", *long])
    assert names["order_number"] == "order_number"
    assert len(set(names.values())) == len(names)
    assert all(IDENTIFIER.fullmatch(plain) for plain in names.values())
    again = plain_names(["order-number", "order.number"], kept={"order-number": "order_number_3"})
    assert again == {"order-number": "order_number_3", "order.number": "order_number"}


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        ("Email", [], "its name says email"),
        ("billing_street", [], "its name says street"),
        ("payload", ["ann@example.org", "bob@example.org", "x@y.ua"], "e-mail addresses"),
        (
            "ref",
            ["GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "FR1420041010050500013M02606"],
            "IBANs",
        ),
        ("ref", ["4111 1111 1111 1111", "5500005555555559", "340000000000009"], "card numbers"),
        ("seen_from", ["127.0.0.1", "::1", "10.0.0.8"], "IP addresses"),
        ("status", ["new", "paid", "sent"], None),
        ("amount", ["1.50", "4111.00", "12"], None),
        ("ref", ["4111111111111112", "5500005555555551", "340000000000001"], None),
    ],
)
def test_personal_data_is_told_by_name_or_content(name: str, values: list[str], found: str | None) -> None:
    said = personal.guess(name, values)
    assert (said is None) if found is None else (said is not None and found in said)


def column(name: str, declared: str = "int", **more: object) -> CatalogueColumn:
    return CatalogueColumn(name, declared, ColumnType.parse(declared), nullable=False, **more)  # type: ignore[arg-type]


TABLE = CatalogueTable(
    "",
    "Orders",
    "table",
    (
        column("id", counts_up=True),
        column("off", "varchar(9)"),
        column("Changed At", "datetime(6)", stamped=True),
    ),
    (UniqueIndex("PRIMARY", ("id",), True),),
)
CATALOGUE = Catalogue("mysql", "11.4", "shop", (TABLE,))


def judged(table: CatalogueTable, catalogue: Catalogue = CATALOGUE) -> tuple[str | None, str]:
    profile = TableProfile(9, {one.name: ColumnProfile(9) for one in table.columns}, 0)
    found = judge(catalogue, table, profile)
    return found.cursor, "\n".join(found.reasons)


def test_a_cursor_is_stamped_by_the_server_not_null_and_no_number() -> None:
    cursor, said = judged(TABLE)
    assert cursor == "Changed At"
    assert "not the cursor: id, a number that counts up" in said
    assert "no index begins with it" in said
    for changed, why in (
        ({"stamped": False}, "the server does not stamp it"),
        ({"nullable": True}, "it may be NULL"),
    ):
        columns = (*TABLE.columns[:2], replace(TABLE.columns[2], **changed))
        cursor, said = judged(replace(TABLE, columns=columns))
        assert cursor is None
        assert why in said
    for catalogue, why in (
        (replace(CATALOGUE, replica=True), "the server is a replica"),
        (replace(CATALOGUE, clock_off=7200), "7200 s away from UTC"),
    ):
        cursor, said = judged(TABLE, catalogue)
        assert cursor is None
        assert why in said
    cursor, said = judged(replace(TABLE, unique=()))
    assert cursor is None
    assert "without a key a changed row cannot be recognised" in said


def test_what_a_person_wrote_into_a_contract_stays_and_the_rest_follows() -> None:
    profile = TableProfile(9, {one.name: ColumnProfile(9) for one in TABLE.columns}, 0)
    found = judge(CATALOGUE, TABLE, profile)
    columns = {"id": "id", "off": "off", "Changed At": "changed_at"}
    first = drafts.NamedTable("shop_orders", TABLE, columns, found)
    text = drafts.overlay("shop", CATALOGUE, "mysql_shop", [first], None)
    text = text.replace(
        "    cursor: changed_at", "    proof: count # it is large\n    pii: ['off']\n    cursor: changed_at"
    )
    contract = read_source("shop", yaml.safe_load(text), drafts.dbml("shop", CATALOGUE, [first]))
    (table,) = contract.tables
    assert (table.in_source, table.column("changed_at").in_source) == ("Orders", "Changed At")
    assert table.pii == ("off",)

    email = column("email", "varchar(90)")
    wider = replace(TABLE, columns=(TABLE.columns[0], TABLE.columns[2], email))
    profile = TableProfile(9, {one.name: ColumnProfile(9) for one in wider.columns}, 0)
    again = drafts.NamedTable(
        "shop_orders",
        wider,
        {"id": "id", "Changed At": "changed_at", "email": "email"},
        judge(CATALOGUE, wider, profile),
        frozenset({"email"}),
    )
    followed = drafts.overlay("shop", CATALOGUE, "mysql_shop", [again], text)
    assert "proof: count # it is large" in followed
    settings = yaml.safe_load(followed)["tables"]["shop_orders"]
    assert settings["pii"] == ["email"]
    assert settings["columns"] == {"changed_at": "Changed At"}
    assert drafts.overlay("shop", CATALOGUE, "mysql_shop", [again], followed) == followed


def test_children_come_before_their_parents_and_circles_end() -> None:
    def table(name: str, *parents: str) -> CatalogueTable:
        return CatalogueTable("", name, "table", (), refers_to=frozenset(parents))

    order = [one.name for one in children_first([table("a"), table("b", "a", "b"), table("c", "b")])]
    assert order == ["c", "b", "a"]
    circle = children_first([table("a", "b"), table("b", "a")])
    assert {one.name for one in circle} == {"a", "b"}


def test_a_connection_holds_no_password_and_no_placeholder_of_a_stranger() -> None:
    place = {"host": "::1", "port": 3306, "schema": "a$b", "login": "x: {y}"}
    text = drafts.connection("mysql_shop", "mysql", place, {"ssl_mode": "REQUIRED"}, "MYSQL_SHOP_PASSWORD")
    entry = yaml.safe_load(text)["mysql_shop"]
    assert entry["schema"] == "a$$b"
    assert entry["login"] == "x: {y}"
    assert entry["password"] == "${MYSQL_SHOP_PASSWORD}"
    assert entry["extra"]["ssl_mode"] == "REQUIRED"
