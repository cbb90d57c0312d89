"""Nothing listens beyond this machine, in the quiet and in the middle of a night."""

import ipaddress
import threading

import pytest

from scripts.stack.context import Stack
from scripts.stack.night import AirflowApi, run_night
from scripts.stack.services import services
from tallyhouse.settings import Settings
from tests.stack.sockets import Listening, decoded, listening_sockets


def test_addresses_of_proc_are_read_right() -> None:
    assert decoded("0100007F") == ipaddress.ip_address("127.0.0.1")
    assert decoded("00000000000000000000000001000000") == ipaddress.ip_address("::1")
    mapped = Listening(decoded("0000000000000000FFFF00000100007F"), 1, "java")
    assert mapped.is_local
    assert not Listening(decoded("00000000"), 1, "").is_local


@pytest.mark.integration
def test_every_service_listens_on_loopback_only(settings: Settings) -> None:
    found = listening_sockets(settings)
    assert [one for one in found if not one.is_local] == []
    wanted = {port for service in services(Stack(settings)) for port in service.ports.values()}
    assert wanted <= {one.port for one in found}


@pytest.mark.integration
def test_a_night_opens_nothing_beyond_loopback(settings: Settings) -> None:
    seen: set[Listening] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.3):
            seen.update(listening_sockets(settings))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        night = run_night(AirflowApi(Stack(settings)), ["pancake_nightly"])
    finally:
        over.set()
        watcher.join()
    assert night.succeeded, night.states
    assert any("java" in one.command for one in seen), "no JVM was seen: the night was not watched"
    assert [one for one in seen if not one.is_local] == []
