"""Draws depend on seed, name and index alone."""

import uuid

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from techmarket.randomness import Randomness

INDEX = np.arange(20_000, dtype=np.int64)


def test_golden_draws() -> None:
    """Written down once: a change here changes everybody's data."""
    r = Randomness(20260101)
    assert r.words("a", np.array([0, 1, 2], dtype=np.int64)).tolist() == [
        15898766354025231796,
        18091773562739329255,
        16233414010090514408,
    ]
    assert r.one_uuid("customer") == "5847b3db-7591-4ef2-9774-c85ef048dbf5"


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=50), st.integers(0, 49))
def test_a_draw_does_not_depend_on_its_neighbours(indexes: list[int], at: int) -> None:
    r = Randomness(7)
    whole = np.array(indexes, dtype=np.int64)
    alone = whole[at % len(whole) :][:1]
    assert r.uniform("x", whole)[at % len(whole)] == r.uniform("x", alone)[0]
    assert r.uuids("x", whole)[at % len(whole)] == r.uuids("x", alone)[0]


def test_names_and_seeds_are_independent() -> None:
    a, b = Randomness(1).uniform("x", INDEX), Randomness(1).uniform("y", INDEX)
    c = Randomness(2).uniform("x", INDEX)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03
    assert abs(np.corrcoef(a, c)[0, 1]) < 0.03
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.03


def test_uniform_is_uniform() -> None:
    drawn = Randomness(3).uniform("x", INDEX)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    # Chi-squared with 19 degrees of freedom: above 50 about once in 10,000 seeds.
    assert (((counts - 1000) ** 2) / 1000).sum() < 50


def test_weighted_follows_its_weights() -> None:
    drawn = Randomness(3).weighted("x", INDEX, (1, 0, 3))
    assert abs((drawn == 0).mean() - 0.25) < 0.02
    assert not (drawn == 1).any()


def test_uuids_are_distinct_version_4() -> None:
    made = Randomness(5).uuids("x", INDEX)
    assert len(set(made)) == len(INDEX)
    parsed = [uuid.UUID(text) for text in made[:500]]
    assert {one.version for one in parsed} == {4}
    assert {one.variant for one in parsed} == {uuid.RFC_4122}
    assert [str(one) for one in parsed] == made[:500]
