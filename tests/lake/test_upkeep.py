"""Lake upkeep on a real MinIO and a warehouse of its own: what goes, what stays, and deaths in the middle."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tallyhouse.errors import TallyhouseError
from tallyhouse.lake.bucket import Bucket
from tallyhouse.lake.upkeep import Survey, budget, report, upkeep
from tallyhouse.migrate import migrate_warehouse
from tallyhouse.servers import PostgresServer
from tallyhouse.settings import ROOT, LakeUpkeep, Settings

pytestmark = pytest.mark.integration

KEEP = LakeUpkeep(
    lake_accepted_days=7,
    lake_increment_days=30,
    lake_failed_days=7,
    lake_grace_hours=24,
    lake_budget_gb=0,
)
LATER = timedelta(days=60)


class House:
    """A bucket and a warehouse's runs. Objects are as old as the test, so the upkeep is told a later time."""

    def __init__(self, client: Any, bucket: str, connection: psycopg.Connection[Any], address: str) -> None:
        self.client = client
        self.bucket = Bucket(client, bucket)
        self.connection = connection
        self.address = address

    def run(
        self, run_id: str, status: str, *, days: int = 0, pipeline: str = "shop", shown: bool = True
    ) -> str:
        """A run that was opened that many days ago, as seen from now, and published at once if it was."""
        at = datetime.now(UTC) - timedelta(days=days)
        self.connection.execute(
            "INSERT INTO etl.run (run_id, pipeline, tables, dag_id, dag_run_id, status, started_at, "
            "published_at) VALUES (%s, %s, '{things}', 'd', 'r', %s, %s, %s)",
            (run_id, pipeline, status, at, at if status == "published" else None),
        )
        if status == "published" and not shown:
            self.connection.execute(
                "INSERT INTO etl.run_target (run_id, target, state) VALUES (%s, 'clickhouse', 'pending')",
                (run_id,),
            )
        return run_id

    def put(self, *keys: str) -> None:
        for key in keys:
            self.client.put_object(Bucket=self.bucket.name, Key=key, Body=b"x" * 100)

    def batch(self, run_id: str, attempt: int = 1, *, committed: bool = True) -> str:
        """A raw batch's folder."""
        folder = f"raw/shop/things/run={run_id}/attempt={attempt}"
        self.put(f"{folder}/part-00000.parquet", f"{folder}/part-00001.parquet")
        if committed:
            self.put(f"{folder}/_manifest.json")
        return folder

    def content(self) -> set[str]:
        """By the client alone, not by what is tested."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket.name)
        return {one["Key"] for page in pages for one in page.get("Contents", ())}

    def clear(self) -> None:
        for key in self.content():
            self.client.delete_object(Bucket=self.bucket.name, Key=key)
        self.connection.execute("TRUNCATE etl.run CASCADE")

    def upkeep(self, *, apply: bool = True, after: timedelta = LATER, keep: LakeUpkeep = KEEP) -> Survey:
        return upkeep(self.connection, self.bucket, keep, now=datetime.now(UTC) + after, apply=apply)


@pytest.fixture
def client(settings: Settings) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=settings.minio_url,
        aws_access_key_id=settings.minio_root_user,
        aws_secret_access_key=settings.minio_root_password,
        region_name=settings.lake_region,
    )


@pytest.fixture
def house(client: Any, postgres_scratch: str, settings: Settings) -> Iterator[House]:
    server = PostgresServer.parse(postgres_scratch)
    migrate_warehouse(settings.model_copy(update={"dwh_db": server.options["dbname"]}))
    name = f"scratch-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=name)
    with psycopg.connect(postgres_scratch, autocommit=True) as connection:
        house = House(client, name, connection, postgres_scratch)
        yield house
        house.clear()
    for one in client.list_multipart_uploads(Bucket=name).get("Uploads", ()):
        client.abort_multipart_upload(Bucket=name, Key=one["Key"], UploadId=one["UploadId"])
    client.delete_bucket(Bucket=name)


def test_a_dry_run_lists_with_sizes_and_removes_nothing(house: House) -> None:
    house.batch(house.run("old", "failed", days=3))
    house.run("new", "published")
    before = house.content()
    survey = house.upkeep(apply=False)
    assert house.content() == before
    lines = list(report(survey, applied=False))
    assert " ".join(lines[0].split()) == (
        "300 B 3 objects raw/shop/things/run=old/attempt=1: its run was superseded"
    )
    assert lines[1:] == ["the lake holds 300 B: raw 300 B in 3", "1 places, 300 B would go"]


def test_a_try_that_never_committed_goes_and_the_one_that_counts_stays(house: House) -> None:
    house.run("r1", "published", days=2)
    house.run("r2", "published")
    died, first, whole = (
        house.batch("r1", 1, committed=False),
        house.batch("r1", 2),
        house.batch("r1", 10),
    )
    died_later = house.batch("r1", 11, committed=False)
    survey = house.upkeep()
    assert {one.place: one.why for one in survey.leftovers} == {
        died: "a try that never committed",
        first: "a later try committed",
        died_later: "a try that never committed",
    }
    assert house.content() == {f"{whole}/{name}" for name in ("part-00000.parquet", "part-00001.parquet")} | {
        f"{whole}/_manifest.json"
    }


def test_what_is_younger_than_the_grace_stays(house: House) -> None:
    house.run("r1", "published", days=400)
    house.run("r2", "published")
    house.batch("r1", 1)
    house.batch("r1", 2, committed=False)
    before = house.content()
    assert house.upkeep(after=timedelta(hours=23)).leftovers == []
    assert house.content() == before
    assert len(house.upkeep(after=timedelta(hours=25)).leftovers) == 1


@pytest.mark.parametrize("status", ["running", "failed"])
def test_a_run_that_may_still_be_taken_up_is_not_touched(house: House, status: str) -> None:
    house.run("r1", "published", days=2)
    house.run("r2", status)
    house.batch("r2", 1, committed=False)
    house.batch("r2", 2)
    house.put("accepted/shop/things/run=r2/a.parquet", "increment/m/run=r2/a.parquet")
    before = house.content()
    assert house.upkeep().leftovers == []
    assert house.content() == before


def test_layers_go_after_their_own_time_and_increments_once_targets_show_them(house: House) -> None:
    for run_id, shown in (("shown", True), ("owed", False)):
        house.run(run_id, "published", days=5, shown=shown)
        house.batch(run_id)
        for layer in ("accepted/shop/things", "increment/m", "removed/m"):
            house.put(f"{layer}/run={run_id}/part-0.parquet")
        house.put(f"report/shop/run={run_id}/transform.json")
    house.run("last", "published")
    house.put("accepted/shop/things/run=last/a.parquet")
    gone = house.content()
    house.upkeep(after=timedelta(days=3))
    gone -= house.content()
    assert gone == {f"accepted/shop/things/run={run}/part-0.parquet" for run in ("shown", "owed")}
    gone = house.content()
    house.upkeep(after=timedelta(days=26))
    gone -= house.content()
    assert gone == {f"{layer}/m/run=shown/part-0.parquet" for layer in ("increment", "removed")}


def test_the_last_run_that_took_a_table_stays_where_later_ones_left_it_out(house: House) -> None:
    house.run("r1", "published", days=50)
    house.run("r2", "published", days=1)
    house.connection.execute("UPDATE etl.run SET tables = '{others}' WHERE run_id = 'r2'")
    house.put("accepted/shop/things/run=r1/a.parquet")
    assert house.upkeep().leftovers == []


def test_runs_that_the_warehouse_does_not_know_stay_and_are_told(house: House) -> None:
    house.run("r1", "published")
    house.batch("since-the-backup", committed=False)
    survey = house.upkeep()
    assert survey.leftovers == []
    assert "200 B belong to runs that the warehouse does not know, and stay" in report(survey, applied=True)


def test_a_half_done_upload_is_given_up_but_not_that_of_an_open_run(house: House) -> None:
    house.run("old", "failed", days=9)
    house.run("open", "running")
    house.run("last", "published", days=1)
    for run_id in ("old", "open"):
        key = f"raw/shop/things/run={run_id}/attempt=1/part-00000.parquet"
        made = house.client.create_multipart_upload(Bucket=house.bucket.name, Key=key)
        house.client.upload_part(
            Bucket=house.bucket.name, Key=key, UploadId=made["UploadId"], PartNumber=1, Body=b"x" * 1000
        )
    assert house.upkeep(after=timedelta(hours=1)).leftovers == []
    survey = house.upkeep()
    assert [(one.layer, one.bytes) for one in survey.leftovers] == [("upload", 1000)]
    left = house.client.list_multipart_uploads(Bucket=house.bucket.name)["Uploads"]
    assert ["run=open" in one["Key"] for one in left] == [True]


def test_a_copy_for_a_target_that_broke_off_goes(house: House) -> None:
    house.put(
        "repair/clickhouse/dim_x/part-00000.parquet", "kaggle/o/d/v1/file.csv", "data-docs/a/index.html"
    )
    house.upkeep()
    assert house.content() == {"kaggle/o/d/v1/file.csv", "data-docs/a/index.html"}


def test_two_upkeeps_do_not_meet(house: House) -> None:
    with psycopg.connect(house.address, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('tallyhouse lake upkeep', 0))")
        with pytest.raises(TallyhouseError, match="another upkeep of the lake is at work"):
            house.upkeep()
    house.upkeep()


def test_the_budget_warns_before_it_is_met_and_fails_beyond_it(house: House) -> None:
    house.put(*(f"report/shop/run=r{number}/x.json" for number in range(7)))
    survey = house.upkeep(after=timedelta(0))

    def of(most: int) -> LakeUpkeep:
        return KEEP.model_copy(update={"lake_budget_gb": most / 10**9})

    assert budget(survey, of(0), applied=True) is None
    assert budget(survey, of(1000), applied=True) is None
    warning = budget(survey, of(800), applied=True)
    assert warning is not None
    assert "the lake has 700 B of 800 B (LAKE_BUDGET_GB), most of it below report/" in warning
    assert "at last week's pace it is full in 1 days" in warning
    with pytest.raises(TallyhouseError, match="lake: the lake has 700 B of 600 B"):
        budget(survey, of(600), applied=True)


SWEEP = """
import sys
from datetime import UTC, datetime, timedelta
import psycopg
from tallyhouse.lake.bucket import Bucket
from tallyhouse.lake.upkeep import upkeep
from tests.lake.test_upkeep import KEEP, LATER
address, name, *access = sys.argv[1:]
bucket = Bucket.s3(name, **dict(zip(("endpoint", "access_key", "secret_key"), access)))
with psycopg.connect(address, autocommit=True) as connection:
    upkeep(connection, bucket, KEEP, now=datetime.now(UTC) + LATER, apply=True)
"""


def test_killed_in_the_middle_and_started_again_nothing_that_counts_is_lost(
    house: House, settings: Settings
) -> None:
    house.run("r1", "published", days=9)
    whole = house.batch("r1", 99)
    for attempt in range(1, 61):
        house.batch("r1", attempt, committed=attempt % 2 == 0)
    house.run("r2", "published")
    house.batch("r2")
    needed = {key for key in house.content() if key.startswith(whole) or "run=r2/" in key}
    before = len(house.content())
    sweep = subprocess.Popen(
        [
            *(sys.executable, "-c", SWEEP, house.address, house.bucket.name),
            *(settings.minio_url, settings.minio_root_user, settings.minio_root_password),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'include'}{os.pathsep}{ROOT}"},
    )
    while len(house.content()) > before - 20:
        assert sweep.poll() is None
        time.sleep(0.002)
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    left = house.content()
    assert needed < left
    # No try but the one that counts looks whole without being so.
    for manifest in (key for key in left if key.endswith("_manifest.json")):
        folder = manifest.rpartition("/")[0]
        assert {f"{folder}/part-00000.parquet", f"{folder}/part-00001.parquet"} <= left
    deadline = time.monotonic() + 10  # until the server has seen that the client is gone
    while True:
        try:
            house.upkeep()
            break
        except TallyhouseError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert house.content() == needed
    assert house.upkeep().leftovers == []


RUNS = st.lists(
    st.tuples(
        st.sampled_from(["published", "failed"]),
        st.lists(st.booleans(), max_size=3),  # of each try of the extraction: whether it committed
    ),
    min_size=1,
    max_size=5,
)


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(runs=RUNS, after=st.integers(0, 400))
def test_whatever_is_swept_what_published_runs_are_rebuilt_from_remains(
    house: House, runs: list[tuple[str, list[bool]]], after: int
) -> None:
    house.clear()
    needed: set[str] = set()
    for number, (status, tries) in enumerate(runs):
        run_id = house.run(f"r{number}", status, days=len(runs) - number)
        for attempt, committed in enumerate(tries, start=1):
            house.batch(run_id, attempt, committed=committed)
        if status == "published" and any(tries):
            counts = max(attempt for attempt, committed in enumerate(tries, start=1) if committed)
            needed |= {key for key in house.content() if f"/run={run_id}/attempt={counts}/" in key}
    # The one that a pipeline ends with may be taken up again.
    needed |= {key for key in house.content() if f"/run=r{len(runs) - 1}/" in key}
    house.upkeep(after=timedelta(days=after))
    assert needed <= house.content()
