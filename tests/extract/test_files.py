"""CSV files of datasets: read whole, counted by another reader, and refused by the line that is wrong."""

import csv
import hashlib
import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyhouse.contracts import TableContract, load_source
from tallyhouse.errors import TallyhouseError
from tallyhouse.extract.files import find_file, open_stream
from tallyhouse.extract.to_raw import write_batch
from tallyhouse.lake import Lake
from tests.jobs.fetch_kaggle.olist import (
    ITEM_COLUMNS,
    ITEMS,
    REF,
    SELLER_COLUMNS,
    SELLERS,
    files,
    items,
    sellers,
    text,
)

SOURCE = load_source("kaggle")
SELLER = SOURCE.table("olist_sellers")
ITEM = SOURCE.table("olist_order_items")
ROW = ["0" * 32, "13023", "campinas", "SP"]


def put(lake: Lake, name: str, content: bytes, *, version: int = 1, sha256: str | None = None) -> None:
    folder = Path(lake.root, "kaggle", REF, f"v{version}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    digest = sha256 or hashlib.sha256(content).hexdigest()
    about = {"files": [{"name": name, "bytes": len(content), "sha256": digest}]}
    (folder / "_dataset.json").write_text(json.dumps(about))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.local(str(tmp_path))


def taken(lake: Lake, contract: TableContract) -> list[dict[str, str | None]]:
    """What a table's file holds, by way of raw."""
    file = find_file(lake, SOURCE.files[contract.name], contract)
    stream = open_stream(lake, file, contract)
    manifest = write_batch(stream, lake, contract, run_id="r", attempt=1, watermark=None)
    assert manifest.source_rows == manifest.rows == stream.statement.rows
    assert manifest.digest == manifest.raw_digest is not None
    keys = [part.key for part in manifest.parts]
    return [row for batch in lake.read_batches(keys) for row in batch.to_pylist()]


def refused(lake: Lake, contract: TableContract) -> TallyhouseError:
    with pytest.raises(TallyhouseError) as error:
        taken(lake, contract)
    assert not list(Path(lake.root, "raw").rglob("_manifest.json")), "nothing was committed"
    assert not error.value.transient
    return error.value


def test_a_file_of_the_real_size(lake: Lake):
    rows = items(sellers())
    put(lake, ITEMS, text(ITEM_COLUMNS, rows))
    file = find_file(lake, SOURCE.files[ITEM.name], ITEM)
    said = open_stream(lake, file, ITEM).statement
    assert said.rows == 112_650
    for name, place in (("price", 5), ("freight_value", 6)):
        assert Decimal(said.control_totals[name]) == sum(Decimal(row[place]) for row in rows)
    assert taken(lake, ITEM) == [dict(zip(ITEM_COLUMNS, row, strict=True)) for row in rows]


def test_the_newest_version_is_taken_once_it_is_whole(lake: Lake):
    put(lake, SELLERS, text(SELLER_COLUMNS, [ROW]), version=9)
    put(lake, SELLERS, text(SELLER_COLUMNS, [ROW, ["1" * 32, *ROW[1:]]]), version=10)
    Path(lake.root, "kaggle", REF, "v11").mkdir()
    assert find_file(lake, SOURCE.files[SELLER.name], SELLER).version == 10
    assert len(taken(lake, SELLER)) == 2


VALUE = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@settings(deadline=None, max_examples=80)
@given(rows=st.lists(st.tuples(VALUE, VALUE, VALUE, VALUE), max_size=8))
def test_every_text_comes_through(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]):
    """Commas, quotes, line breaks of every kind, blanks: as Python's own writer wrote them."""
    lake = Lake.local(str(tmp_path_factory.mktemp("lake")))
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([SELLER_COLUMNS, *rows])
    put(lake, SELLERS, sink.getvalue().encode())
    expected = [
        {name: value or None for name, value in zip(SELLER_COLUMNS, row, strict=True)} for row in rows
    ]
    assert taken(lake, SELLER) == expected


def test_forms_that_are_read_as_well(lake: Lake):
    """A mark of order, another order of columns, one that the contract does not know, Windows' line ends."""
    heading = ["more", *SELLER_COLUMNS[::-1]]
    body = "\r\n".join([",".join(heading), ",".join(["x", *ROW[::-1]]), ""])
    put(lake, SELLERS, b"\xef\xbb\xbf" + body.encode())
    assert taken(lake, SELLER) == [dict(zip(SELLER_COLUMNS, ROW, strict=True))]
    put(lake, SELLERS, text(SELLER_COLUMNS, []), version=2)
    assert taken(lake, SELLER) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "heading lacks seller_id"),
        (b"seller_id,seller_city,seller_state\n", "heading lacks seller_zip_code_prefix"),
        (text([*SELLER_COLUMNS, "seller_id"], []), "names a column twice"),
        (text(SELLER_COLUMNS, [ROW, ROW[:3], ROW]), "line 3 of kaggle/.*has 3 values, its heading 4"),
        (text(SELLER_COLUMNS, [ROW, [*ROW, "x"]]), "line 3 of kaggle/.*has 5 values"),
        (text(SELLER_COLUMNS, [ROW]) + b'a,"b,c,d\n', "line 3 of .*cannot be read"),
        (text(SELLER_COLUMNS, [ROW]) + b"\xff,b,c,d\n", "is not UTF-8"),
    ],
)
def test_what_is_no_such_csv_is_refused_with_its_line(lake: Lake, content: bytes, said: str):
    put(lake, SELLERS, content)
    error = refused(lake, SELLER)
    assert error.arguments()["table"] == "kaggle.olist_sellers"
    with pytest.raises(TallyhouseError, match=said):
        raise error


def test_a_total_that_is_no_number(lake: Lake):
    rows = items(sellers(5), 10)
    for wrong in ("1,5", "NaN", "x"):
        put(lake, ITEMS, text(ITEM_COLUMNS, [*rows[:4], [*rows[4][:5], wrong, "1.00"], *rows[5:]]))
        with pytest.raises(TallyhouseError, match="line 6 of"):
            raise refused(lake, ITEM)


def test_a_file_that_is_not_what_was_fetched(lake: Lake):
    put(lake, SELLERS, text(SELLER_COLUMNS, [ROW]), sha256="0" * 64)
    with pytest.raises(TallyhouseError, match="SHA-256"):
        raise refused(lake, SELLER)


def test_what_is_not_there(lake: Lake):
    with pytest.raises(TallyhouseError, match="no version of olistbr/brazilian-ecommerce"):
        taken(lake, SELLER)
    put(lake, ITEMS, files(10)[ITEMS])
    with pytest.raises(TallyhouseError, match=f"has no file {SELLERS}"):
        taken(lake, SELLER)
