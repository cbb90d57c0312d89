"""When the relay rests between objects, and when it does not."""

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.relay import Outlook, Pace


def pace(*, put: float = 0.005, writers: int = 4) -> Pace:
    made = Pace(writers=writers, rest=5, most_waiting=1000)
    for _ in range(500):
        made.wrote(put)
    made.look(0, Outlook(0, 0))
    return made


def test_it_rests_while_more_comes_than_can_be_written():
    busy = pace()  # 4 writers of 200 a second each
    busy.look(1, Outlook(900, 10))
    assert busy.rest == 5
    busy.look(2, Outlook(1600, 10))
    assert busy.rest == 0


def test_it_does_not_rest_when_the_outbox_is_nearly_full():
    full = pace()
    full.look(1, Outlook(2000, 1000))
    assert full.rest == 0


def test_one_look_tells_nothing():
    new = Pace(writers=1, rest=5, most_waiting=1000)
    new.look(0, Outlook(10**9, 10))
    new.look(0, Outlook(10**9, 10))
    assert new.rest == 0


@given(
    coming=st.lists(st.integers(0, 10_000), min_size=1), put=st.floats(0.0001, 1), writers=st.integers(1, 64)
)
def test_the_rest_says_whether_the_last_second_was_too_much(coming: list[int], put: float, writers: int):
    # A look that rested does not mistake its own rest for slowness: it still sees what comes by itself.
    made = pace(put=put, writers=writers)
    for second, accepted in enumerate(accumulate(coming), 1):
        made.look(second, Outlook(accepted, 0))
    wanted = coming[-1] * put
    if wanted > writers * 1.001:
        assert made.rest == 5
    elif wanted < writers * 0.999:
        assert made.rest == 0
