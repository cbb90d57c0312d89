"""Torture runs on the sources of the extraction's tests and on the Spark session of the jobs' tests."""

from tests.extract.conftest import other_engine
from tests.spark_jobs.conftest import spark

__all__ = ["other_engine", "spark"]
