"""On the running stack: a pancake that was posted is in what the next night takes."""

import uuid

import httpx
import psycopg
import pytest

from tallyhouse.contracts import load_source
from tallyhouse.extract.postgres import open_stream
from tallyhouse.settings import Settings

pytestmark = pytest.mark.integration


def test_a_posted_pancake_is_in_the_nights_source(settings: Settings):
    name = f"Test {uuid.uuid4()}"
    given = {
        "name": name,
        "fluffiness_level": 10,
        "syrup_type": "кленовий",
        "is_buttery": True,
        "magical_factor": -0.07,
        "taste_notes": "Рядок.\nІ ще один. 🥞",
    }
    server = f"{settings.postgres_host}:{settings.postgres_port}/{settings.pancake_db}"
    answer = httpx.post(f"{settings.pancake_url}/api/pancakes", json=given, timeout=10)
    assert answer.status_code == 201
    try:
        contract = next(table for table in load_source("pancake").tables if table.name == "pancakes")
        reader = f"postgresql://{settings.etl_reader_user}:{settings.etl_reader_password}@{server}"
        taken = [row for batch in open_stream(reader, contract, None).batches for row in batch.to_pylist()]
    finally:
        owner = f"postgresql://{settings.pancake_user}:{settings.pancake_password}@{server}"
        with psycopg.connect(owner) as connection:
            connection.execute("DELETE FROM pancakes WHERE name = %s", [name])
    (row,) = [row for row in taken if row["name"] == name]
    assert {field: row[field] for field in given} == given | {"is_buttery": 1, "magical_factor": "-0.07"}
