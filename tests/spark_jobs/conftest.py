"""One Spark session for all tests of the jobs."""

import os
import sys
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from spark_jobs.session import build_session


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    # createDataFrame of the tests may need a Python worker; jobs never do.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = build_session("tests")
    yield session
    session.stop()
