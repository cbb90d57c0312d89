"""The servers' tests share the Spark session of the jobs' tests."""

from tests.spark_jobs.conftest import spark

__all__ = ["spark"]
