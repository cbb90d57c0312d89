"""The job against a server that speaks Kaggle's API, with the official client, for better and for worse.

Kaggle itself cannot be reached from a test; see kaggle_server.py for what stands in its place.
"""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.fetch_kaggle.errors import FetchError
from jobs.fetch_kaggle.fetch import fetch_all, plan
from jobs.fetch_kaggle.settings import Settings, Wanted, read_wanted
from jobs.fetch_kaggle.store import ABOUT, PARTIAL, Held
from tests.jobs.fetch_kaggle.kaggle_server import TOKEN, KaggleServer
from tests.jobs.fetch_kaggle.olist import ITEMS, OTHER, REF, SELLERS, files

ROOT = Path(__file__).parents[3]
BOTH = Wanted(ref=REF, files=(SELLERS, ITEMS))
SMALL = files(2000)
type Make = Callable[..., Settings]


@pytest.fixture(scope="session")
def olist() -> dict[str, bytes]:
    """Of the real size."""
    return files()


@pytest.fixture
def server() -> Iterator[KaggleServer]:
    with KaggleServer() as server:
        server.put(REF, 1, SMALL, {ITEMS})
        yield server


@pytest.fixture
def make(server: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_DATA_API_URL", "MINIO_ENDPOINT", "KAGGLE_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "nothing"))
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)

    def made(**more: object) -> Settings:
        return Settings.model_validate(
            {
                "kaggle_data_root": tmp_path / "data",
                "kaggle_api_token": TOKEN,
                "kaggle_endpoint": server.url,
                "fetch_kaggle_wait": 0.01,
                "fetch_kaggle_free_bytes": 0,
                "fetch_kaggle_attempts": 3,
                **more,
            }
        )

    return made


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (ABOUT, ".lock")
    }


def failed(settings: Settings, wanted: Wanted = BOTH) -> str:
    """The error of a fetch that must not have left anything that a reader would take for the dataset."""
    (outcome,) = fetch_all(settings, [wanted])
    assert outcome.held is None
    assert not list(settings.kaggle_data_root.glob(f"{REF}/v*"))
    assert "\n" not in str(outcome.error)
    return str(outcome.error)


def test_files_of_the_real_size(make: Make, server: KaggleServer, olist: dict[str, bytes]):
    server.put(REF, 1, olist, {ITEMS})
    settings = make()
    (outcome,) = fetch_all(settings, [BOTH])
    folder = settings.kaggle_data_root / REF / "v1"
    assert (
        str(outcome) == f"{REF}: version 1 fetched, 2 files, {len(olist[SELLERS]) + len(olist[ITEMS])} bytes"
    )
    assert content(settings.kaggle_data_root) == {
        f"{REF}/v1/{SELLERS}": olist[SELLERS],
        f"{REF}/v1/{ITEMS}": olist[ITEMS],
    }
    about = json.loads((folder / ABOUT).read_text())
    assert {file["name"]: file["sha256"] for file in about["files"]} == {
        name: hashlib.sha256(olist[name]).hexdigest() for name in (SELLERS, ITEMS)
    }
    assert (about["version"], about["licence"]) == (1, "CC-BY-NC-SA-4.0")
    assert not (settings.kaggle_data_root / PARTIAL / REF).exists()


def test_all_files_when_none_is_named_and_in_many_pages(make: Make, server: KaggleServer):
    server.page = 1
    settings = make()
    (outcome,) = fetch_all(settings, [Wanted(ref=REF)])
    assert outcome.held is not None
    assert {file.name for file in outcome.held.files} == {SELLERS, ITEMS, OTHER}


def test_what_is_there_is_not_fetched_again(make: Make, server: KaggleServer):
    settings = make()
    fetch_all(settings, [BOTH])
    sent = server.sent
    (again,) = fetch_all(settings, [BOTH])
    assert not again.fetched
    assert server.sent == sent
    path = settings.kaggle_data_root / REF / "v1" / SELLERS
    path.write_bytes(path.read_bytes()[::-1])  # of the same size: only a thorough look sees it
    assert not fetch_all(settings, [BOTH])[0].fetched
    assert fetch_all(settings, [BOTH], thorough=True)[0].fetched
    path.unlink()
    assert fetch_all(settings, [BOTH])[0].fetched
    assert path.read_bytes() == SMALL[SELLERS]


def test_a_new_version_and_old_ones_that_go(make: Make, server: KaggleServer):
    settings = make(fetch_kaggle_keep=2)
    for version in (1, 2, 3):
        server.put(REF, version, SMALL | {SELLERS: SMALL[SELLERS] + b"x,y,z,%d\n" % version})
        (outcome,) = fetch_all(settings, [BOTH])
        assert outcome.held is not None
        assert (outcome.fetched, outcome.held.version) == (True, version)
    assert sorted(path.name for path in (settings.kaggle_data_root / REF).iterdir()) == ["v2", "v3"]


@pytest.mark.parametrize("name", [SELLERS, ITEMS])
def test_a_download_that_breaks_off_is_gone_on_with(make: Make, server: KaggleServer, olist, name: str):
    server.put(REF, 1, olist)
    server.fault(f"GET .*{name}", cut_after=100_000, times=1)
    settings = make()
    (outcome,) = fetch_all(settings, [BOTH])
    assert outcome.fetched
    assert content(settings.kaggle_data_root / REF / "v1")[name] == olist[name]
    assert any(f"{name} bytes=" in line for line in server.asked), "the rest alone was asked for"


def test_a_download_that_always_breaks_off(make: Make, server: KaggleServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the client waits by itself, for long
    server.fault(f"GET .*{SELLERS}", cut_after=0, times=1000)
    assert SELLERS in failed(make(fetch_kaggle_attempts=2))
    server.faults.clear()
    assert fetch_all(make(), [BOTH])[0].fetched


@pytest.mark.parametrize("name", [SELLERS, ITEMS])
def test_what_changed_on_the_way_is_not_taken(make: Make, server: KaggleServer, name: str):
    """A byte of a file sent as it is: its MD5 says so. In an archive: the archive's own checksum does."""
    fault = server.fault(f"GET .*{name}", change=True, lie=name == SELLERS, times=1)
    settings = make()
    if name == ITEMS:  # packed with the changed byte, so only a checksum of our own would see it
        wanted = BOTH.model_copy(update={"sha256": {ITEMS: hashlib.sha256(SMALL[ITEMS]).hexdigest()}})
    else:
        wanted = BOTH
    fault.times = 10
    assert ("MD5" if name == SELLERS else "SHA-256") in failed(settings, wanted)
    fault.times = 0
    assert fetch_all(settings, [wanted])[0].fetched
    assert content(settings.kaggle_data_root / REF / "v1")[name] == SMALL[name]


def test_a_checksum_of_ours_that_is_not_met(make: Make):
    wanted = BOTH.model_copy(update={"sha256": {SELLERS: "0" * 64}})
    said = failed(make(), wanted)
    assert "expected " + "0" * 64 in said


def test_a_dataset_that_changes_while_it_is_fetched(make: Make, server: KaggleServer):
    """The version that was looked at is fetched to its end; the next run brings the next one."""
    held = threading.Event()
    server.fault("DownloadDataset " + SELLERS, hold=held)
    settings = make()
    original = server.due

    def due(about: str):
        if about.startswith("DownloadDataset"):
            server.put(REF, 2, SMALL | {SELLERS: b"other"})
        return original(about)

    server.due = due  # type: ignore[method-assign]
    (first,) = fetch_all(settings, [BOTH])
    assert first.held is not None
    assert first.held.version == 1
    assert (settings.kaggle_data_root / REF / "v1" / SELLERS).read_bytes() == SMALL[SELLERS]
    (second,) = fetch_all(settings, [BOTH])
    assert second.held is not None
    assert second.held.version == 2
    assert (settings.kaggle_data_root / REF / "v2" / SELLERS).read_bytes() == b"other"


def test_a_version_whose_files_are_not_what_was_listed(make: Make, server: KaggleServer):
    """The server swaps a file of the same version between the list and the download."""
    original = server.due

    def due(about: str):
        if about.startswith("DownloadDataset"):
            server.datasets[REF].versions[1].files = SMALL | {SELLERS: SMALL[SELLERS] + b"more\n"}
        return original(about)

    server.due = due  # type: ignore[method-assign]
    assert "listed with" in failed(make())


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "0"}), (500, {}), (503, {})])
@pytest.mark.parametrize("about", ["GetDataset", "ListDatasetFiles", "DownloadDataset", "GET /storage"])
def test_a_server_that_is_busy_or_ill_for_a_moment(
    make: Make, server: KaggleServer, about: str, status: int, headers: dict[str, str]
):
    server.fault(about, status=status, headers=headers, times=2)
    assert fetch_all(make(), [BOTH])[0].fetched


def test_how_long_a_server_asks_to_wait(make: Make, server: KaggleServer):
    server.fault("GetDataset", status=429, headers={"Retry-After": "1"})
    began = time.monotonic()
    assert fetch_all(make(), [BOTH])[0].fetched
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("status", [429, 500])
def test_a_server_that_stays_ill(make: Make, server: KaggleServer, status: int):
    fault = server.fault("GetDataset", status=status, times=100)
    assert str(status) in failed(make())
    assert fault.times == 97


@pytest.mark.parametrize(("status", "said"), [(401, "KAGGLE_API_TOKEN"), (403, "rights"), (404, "page")])
def test_what_another_try_would_not_fix(make: Make, server: KaggleServer, status: int, said: str):
    fault = server.fault("GetDataset", status=status, times=100)
    assert said in failed(make())
    assert fault.times == 99, "asked once"


def test_nobody_there(make: Make):
    assert "does not answer" in failed(make(kaggle_endpoint="http://127.0.0.1:1"))


def test_a_wrong_token_and_none(make: Make):
    assert "KAGGLE_API_TOKEN" in failed(make(kaggle_api_token="wrong"))
    with pytest.raises(FetchError, match="no token"):
        fetch_all(make(kaggle_api_token=""), [BOTH])


def test_a_key_of_the_older_kind(make: Make, server: KaggleServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")  # the client would take it first
    settings = make(kaggle_api_token="", kaggle_username="datadinosaur", kaggle_key="old")
    assert "401" in failed(settings)
    server.logins.add("Basic ZGF0YWRpbm9zYXVyOm9sZA==")
    assert fetch_all(settings, [BOTH])[0].fetched


def test_a_dataset_that_fails_holds_up_no_other(make: Make, server: KaggleServer):
    server.put("zynicide/wine-reviews", 4, {"wine.csv": b"a,b\n1,2\n"})
    gone, there = fetch_all(make(), [Wanted(ref="nobody/nothing"), Wanted(ref="zynicide/wine-reviews")])
    assert gone.held is None
    assert "404" in str(gone)
    assert there.fetched


def test_a_file_that_is_not_there(make: Make):
    assert "lacks x.csv" in failed(make(), Wanted(ref=REF, files=("x.csv",)))


@pytest.mark.parametrize("name", ["../x.csv", "/etc/x.csv", "a/../../x.csv", ".lock", ABOUT, "a\\b.csv"])
def test_a_name_that_leads_elsewhere_is_refused(make: Make, server: KaggleServer, name: str):
    server.put(REF, 1, {name: b"a\n"})
    assert "is not a plain name" in failed(make(), Wanted(ref=REF))


def test_a_bound_that_is_full(make: Make, server: KaggleServer):
    settings = make(fetch_kaggle_max_bytes=len(SMALL[SELLERS]) + 10)
    said = failed(settings)
    assert "FETCH_KAGGLE_MAX_BYTES" in said
    assert not any(line.startswith("DownloadDataset") for line in server.asked)
    assert "make room" in failed(make(fetch_kaggle_free_bytes=2**62))
    with pytest.raises(FetchError, match="FETCH_KAGGLE_MAX_BYTES"):
        plan(settings, [BOTH])


def test_a_server_that_sends_without_end(make: Make, server: KaggleServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the client waits by itself, for long
    server.fault(f"GET .*{SELLERS}", endless=True, times=10)
    settings = make()
    assert "sends more than" in failed(settings)
    most = len(SMALL[SELLERS]) + 1024 * 1024
    assert all(path.stat().st_size <= most for path in settings.kaggle_data_root.rglob("*") if path.is_file())


def test_an_archive_that_swells(make: Make, server: KaggleServer, monkeypatch: pytest.MonkeyPatch):
    """Its list says a few bytes, the archive holds fifty megabytes."""
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the client waits by itself, for long
    server.put(REF, 1, SMALL | {ITEMS: b"0" * 50_000_000}, {ITEMS})
    original = server.due

    def due(about: str):
        version = server.datasets[REF].versions[1]
        version.files[ITEMS] = b"0" * (100 if about.startswith("ListDatasetFiles") else 50_000_000)
        return original(about)

    server.due = due  # type: ignore[method-assign]
    settings = make()
    assert ITEMS in failed(settings)
    assert all(
        path.stat().st_size < 2_000_000 for path in settings.kaggle_data_root.rglob("*") if path.is_file()
    )


def test_killed_in_the_middle_and_run_again(make: Make, server: KaggleServer, olist: dict[str, bytes]):
    """`kill -9` while the second file comes: no reader takes what is there, and the rest alone is fetched."""
    server.put(REF, 1, olist)
    fault = server.fault(f"GET .*{ITEMS}", cut_after=5_000_000, hold=threading.Event())
    settings = make()
    job = subprocess.Popen(command(), env=environment(settings), cwd=ROOT)
    began = time.monotonic()
    while server.sent < len(olist[SELLERS]) + 5_000_000:
        assert job.poll() is None
        assert time.monotonic() - began < 60
        time.sleep(0.05)
    time.sleep(0.5)
    job.send_signal(signal.SIGKILL)
    job.wait(10)
    assert fault.hold
    fault.hold.set()
    assert not list(settings.kaggle_data_root.glob(f"{REF}/v*"))
    server.asked.clear()
    done = subprocess.run(
        command(), env=environment(settings), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert content(settings.kaggle_data_root) == {
        f"{REF}/v1/{name}": olist[name] for name in (SELLERS, ITEMS)
    }
    (rest,) = [line for line in server.asked if "bytes=" in line]
    assert int(rest.rsplit("bytes=", 1)[1].rstrip("-")) > 4_000_000, "the rest alone was asked for"
    assert not any(SELLERS in line for line in server.asked), "the file that was there was not fetched again"
    assert TOKEN not in done.stdout + done.stderr


def test_one_fetch_at_a_time(make: Make):
    settings = make()
    settings.kaggle_data_root.mkdir()
    with (settings.kaggle_data_root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FetchError, match="another fetch"):
            fetch_all(settings, [BOTH])


def test_a_folder_that_cannot_be_written(make: Make, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match="KAGGLE_DATA_ROOT"):
        fetch_all(make(kaggle_data_root=tmp_path / "file" / "data"), [BOTH])


# -- the command ----------------------------------------------------------------------------------


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "jobs.fetch_kaggle", *words]


def environment(settings: Settings) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "KAGGLE_DATA_ROOT": str(settings.kaggle_data_root),
        "KAGGLE_API_TOKEN": TOKEN,
        "KAGGLE_ENDPOINT": settings.kaggle_endpoint,
        "KAGGLE_CONFIG_DIR": os.environ["KAGGLE_CONFIG_DIR"],
        "FETCH_KAGGLE_FREE_BYTES": "0",
    }


def run(settings: Settings, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        env=environment(settings) | more,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command(make: Make, tmp_path: Path):
    settings = make()
    dry = run(settings, "--dry-run")
    size = len(SMALL[SELLERS]) + len(SMALL[ITEMS])
    assert (dry.returncode, dry.stdout) == (0, f"{REF}: version 1 would be fetched, 2 files, {size} bytes\n")
    assert not settings.kaggle_data_root.exists(), "a dry run writes nothing"
    done = run(settings)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == f"{REF}: version 1 fetched, 2 files, {size} bytes"
    assert run(settings, "--dry-run").stdout == f"{REF}: version 1 is there\n"
    assert "version 1 unchanged" in run(settings, REF, "--verify").stderr
    assert "--dry-run" in run(settings, "--help").stdout


def test_the_command_when_something_is_wrong(make: Make, tmp_path: Path):
    settings = make()
    for words, more, status, said in (
        (["a/b"], {}, 2, "does not name a/b"),
        ([], {"KAGGLE_API_TOKEN": "wrong"}, 1, "401"),
        ([], {"KAGGLE_API_TOKEN": ""}, 2, "no token"),
        ([], {"FETCH_KAGGLE_KEEP": "0"}, 2, "FETCH_KAGGLE_KEEP"),
        (["--datasets", str(tmp_path / "none.yaml")], {}, 2, "none.yaml"),
    ):
        done = run(settings, *words, **more)
        assert done.returncode == status, done.stderr
        assert said in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("datasets: [{ref: a}]", "ref"),
        ("datasets: [{ref: ../b}]", "ref"),
        ("datasets: [{ref: a/b, files: [../c]}]", "plain name"),
        ("datasets: [{ref: a/b}, {ref: a/b}]", "more than once"),
        ("datasets: [{ref: a/b, more: 1}]", "more"),
        ("datasets: [", "cannot be read"),
        ("", "valid dictionary"),
    ],
)
def test_a_file_of_datasets_that_is_none(tmp_path: Path, text: str, said: str):
    file = tmp_path / "datasets.yaml"
    file.write_text(text)
    with pytest.raises(FetchError, match=said):
        read_wanted(file)


def test_the_file_of_datasets_that_is_shipped():
    assert [one.ref for one in read_wanted(ROOT / "jobs/fetch_kaggle/datasets.yaml")] == [REF]


def test_what_is_written_is_read():
    held = Held(REF, 1, "t", None, None, "u", "2026-01-01T00:00:00+00:00", ())
    assert Held.from_json(held.to_json()) == held
    for text in ("[]", "{}", "x", '{"files": [1]}'):
        with pytest.raises(ValueError):
            Held.from_json(text)
