"""Patterns of the suites, as Spark's own regular expressions apply them."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from tallyhouse.contracts import load_pipeline
from tallyhouse.quality.draft import draft
from tallyhouse.quality.suites import read_suite

TABLES = [
    table for pipeline in ("techmarket", "pancake", "events") for table in load_pipeline(pipeline).tables
]
PATTERNS = sorted(
    {
        expectation["kwargs"]["regex"]
        for table in TABLES
        for suite in (read_suite(table), draft(table))
        for expectation in suite["expectations"]
        if "regex" in expectation["kwargs"]
    }
)


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_pattern_takes_no_line_break_after_its_end(spark: SparkSession, pattern: str, data: Any) -> None:
    java: Any = spark._jvm
    compiled = java.java.util.regex.Pattern.compile(pattern)
    # Java's end of the text has another name in Python, where \\s is of Unicode anyhow.
    value = data.draw(
        st.from_regex(
            pattern.replace("\\z", "\\Z").replace("(?U)", ""),
            alphabet=st.characters(codec="ascii", exclude_characters="\0"),
        )
    )
    assert compiled.matcher(value).find(), value
    for end in ("\n", "\r", "\r\n", "\u0085", "\u2028"):
        assert not compiled.matcher(value + end).find(), f"{pattern} takes {value + end!r}: end it with \\z"
