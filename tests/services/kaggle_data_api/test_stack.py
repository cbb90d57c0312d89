"""On the running stack: a dataset's whole life over HTTP; it leaves nothing, and may be run again."""

import uuid

import httpx
import psycopg
import pytest

from scripts.stack.services import kaggle_data_address
from tallyhouse.settings import Settings

pytestmark = pytest.mark.integration


def test_a_datasets_life(settings: Settings):
    word = f"test{uuid.uuid4().hex}"
    given = {"name": f"A {word} of wine", "ref": f"test/{word}", "version": 1}
    with (
        httpx.Client(base_url=settings.kaggle_data_url, timeout=10) as client,
        psycopg.connect(kaggle_data_address(settings), autocommit=True) as database,
    ):

        def rows() -> int:
            found = database.execute(
                "SELECT count(*) FROM datasets WHERE ref = %s", [given["ref"]]
            ).fetchone()
            assert found is not None
            return found[0]

        made = client.post("/datasets", json=given)
        assert made.status_code == 201
        try:
            address = made.headers["location"]
            assert rows() == 1
            assert client.get("/datasets", params={"q": word}).json()["datasets"] == [made.json()]
            assert client.post("/datasets", json=given).status_code == 409
            assert client.put(address, json=given | {"version": 2}).json()["version"] == 2
            assert client.get(address).json()["version"] == 2
        finally:
            assert client.delete(made.headers["location"]).status_code == 204
        assert client.get(made.headers["location"]).status_code == 404
        assert rows() == 0
