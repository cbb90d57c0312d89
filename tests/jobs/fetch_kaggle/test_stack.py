"""On the running stack: a dataset in the lake and in the catalogue."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from jobs.fetch_kaggle.fetch import fetch_all
from jobs.fetch_kaggle.settings import Settings as JobSettings
from jobs.fetch_kaggle.settings import Wanted
from tallyhouse.settings import Settings
from tests.jobs.fetch_kaggle.kaggle_server import TOKEN, KaggleServer
from tests.jobs.fetch_kaggle.olist import ITEMS, SELLERS, files

pytestmark = pytest.mark.integration
REF = "test-owner/test-dataset"
SMALL = files(500)


@pytest.fixture
def server() -> Iterator[KaggleServer]:
    with KaggleServer() as server:
        server.put(REF, 1, SMALL, {ITEMS})
        yield server


@pytest.fixture
def bucket(settings: Settings) -> Iterator[Any]:
    found = boto3.resource(
        "s3",
        endpoint_url=settings.minio_url,
        region_name=settings.lake_region,
        aws_access_key_id=settings.minio_root_user,
        aws_secret_access_key=settings.minio_root_password,
    ).Bucket(settings.lake_bucket)
    yield found
    found.objects.filter(Prefix=f"kaggle/{REF}/").delete()


@pytest.fixture
def catalogue(settings: Settings) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    with httpx.Client(base_url=settings.kaggle_data_url, timeout=10) as client:

        def entered() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = client.get("/datasets", params={"ref": REF}).json()["datasets"]
            return found

        yield entered
        for one in entered():
            client.delete(f"/datasets/{one['id']}")


@pytest.fixture
def job(settings: Settings, server: KaggleServer, tmp_path: Path) -> JobSettings:
    return JobSettings.model_validate(
        {
            "kaggle_data_root": tmp_path,
            "kaggle_api_token": TOKEN,
            "kaggle_endpoint": server.url,
            "kaggle_data_api_url": settings.kaggle_data_url,
            "minio_endpoint": settings.minio_url,
            "lake_bucket": settings.lake_bucket,
            "minio_access_key": settings.minio_root_user,
            "minio_secret_key": settings.minio_root_password,
            "fetch_kaggle_attempts": 2,
            "fetch_kaggle_wait": 0.01,
            "fetch_kaggle_free_bytes": 0,
        }
    )


def test_the_lake_and_the_catalogue(job: JobSettings, server: KaggleServer, bucket: Any, catalogue):
    wanted = [Wanted(ref=REF, files=(SELLERS, ITEMS))]
    assert catalogue() == []
    (first,) = fetch_all(job, wanted)
    assert first.error is None
    found = {one.key: one.get()["Body"].read() for one in bucket.objects.filter(Prefix=f"kaggle/{REF}/")}
    about = json.loads(found.pop(f"kaggle/{REF}/v1/_dataset.json"))
    assert found == {f"kaggle/{REF}/v1/{name}": SMALL[name] for name in (SELLERS, ITEMS)}
    (entry,) = catalogue()
    assert entry["files"] == about["files"]
    assert (entry["version"], entry["total_bytes"]) == (1, len(SMALL[SELLERS]) + len(SMALL[ITEMS]))
    assert entry["source_url"] == f"https://www.kaggle.com/datasets/{REF}"

    fetch_all(job, wanted)
    assert catalogue() == [entry], "a second run changes nothing, not even the time"

    # Died after the folder, before the lake and the catalogue: the next run does the rest.
    bucket.Object(f"kaggle/{REF}/v1/_dataset.json").delete()
    httpx.delete(f"{job.kaggle_data_api_url}/datasets/{entry['id']}").raise_for_status()
    (again,) = fetch_all(job, wanted)
    assert (again.error, again.fetched) == (None, False)
    assert json.loads(bucket.Object(f"kaggle/{REF}/v1/_dataset.json").get()["Body"].read()) == about
    assert [one["files"] for one in catalogue()] == [about["files"]]

    server.put(REF, 2, SMALL | {SELLERS: SMALL[SELLERS][:-1]})
    fetch_all(job, wanted)
    (newer,) = catalogue()
    assert newer["version"] == 2
    keys = {one.key for one in bucket.objects.filter(Prefix=f"kaggle/{REF}/v2/")}
    assert keys == {f"kaggle/{REF}/v2/{name}" for name in (SELLERS, ITEMS, "_dataset.json")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kaggle_data_api_url": "http://127.0.0.1:1"}, "KAGGLE_DATA_API_URL"),
        ({"minio_endpoint": "http://127.0.0.1:1"}, "LAKE_"),
        ({"minio_secret_key": "wrong"}, "LAKE_"),
        ({"lake_bucket": "no-such-bucket"}, "LAKE_"),
    ],
)
def test_what_does_not_answer_is_named(job: JobSettings, bucket: Any, catalogue, change: dict, said: str):
    broken = JobSettings.model_validate(job.model_dump() | change)
    (outcome,) = fetch_all(broken, [Wanted(ref=REF, files=(SELLERS,))])
    assert said in str(outcome.error)
    assert "\n" not in str(outcome.error)
    (after,) = fetch_all(job, [Wanted(ref=REF, files=(SELLERS,))])
    assert (after.error, after.fetched) == (None, False)
    assert [one["version"] for one in catalogue()] == [1]
