"""Lake upkeep on a real MinIO and a warehouse of its own: what goes, what stays, and deaths in the middle."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tallyhouse.errors import TallyhouseError
from tallyhouse.lake.upkeep import budget, report, untouched
from tallyhouse.settings import ROOT, LakeUpkeep, Settings
from tests.lake.conftest import KEEP, House

pytestmark = pytest.mark.integration


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
        with pytest.raises(
            TallyhouseError, match="another upkeep of the lake, or a rebuild of the warehouse, is at work"
        ):
            house.upkeep()
        other.execute("SELECT pg_advisory_unlock_all()")
        with untouched(other), pytest.raises(TallyhouseError, match="or a rebuild of the warehouse"):
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
from datetime import UTC, datetime
import psycopg
from tallyhouse.lake import Lake
from tallyhouse.lake.bucket import Bucket
from tallyhouse.lake.upkeep import upkeep
from tests.lake.conftest import KEEP, LATER
address, name, *access = sys.argv[1:]
access = dict(zip(("endpoint", "access_key", "secret_key"), access))
with psycopg.connect(address, autocommit=True) as connection:
    lake, bucket = Lake.s3(name, **access), Bucket.s3(name, **access)
    upkeep(connection, lake, bucket, KEEP, now=datetime.now(UTC) + LATER, apply=True)
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
