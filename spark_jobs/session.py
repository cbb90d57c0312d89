"""The Spark session that every job starts with."""

from __future__ import annotations

import os
from pathlib import Path

from pyspark.sql import SparkSession

from tallyhouse.spark_tuning import Machine, local_conf

# What a job's result depends on: set whatever spark-submit says.
_SEMANTICS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    # PostgreSQL pads CHAR(n); what is read from it is trimmed where it is typed, not at every scan.
    "spark.sql.legacy.charVarcharAsString": "true",
    # A run's folder is read by nobody before its report is there, so tasks may put their files in
    # place themselves (algorithm 2, one copy per file in S3) instead of leaving a second round of
    # copies to the job's commit. The magic committer would save the first copy as well, but needs one
    # more artifact (spark-hadoop-cloud) for files of a few megabytes.
    "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "2",
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
    "spark.hadoop.mapreduce.fileoutputcommitter.cleanup-failures.ignored": "false",
}
# What only costs or saves time, whatever the machine: adaptive execution merges partitions that turn out
# to be small. What depends on the machine and the data is `tallyhouse.spark_tuning`'s, or the cluster's.
_TUNING = {
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.autoBroadcastJoinThreshold": str(16 * 1024 * 1024),
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}
# Only where this process starts its own JVM; under spark-submit they are the submitter's to say.
_LOCAL = {
    "spark.master": "local[*]",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}


def build_session(app_name: str) -> SparkSession:
    """Starts the session, or returns the one that runs.

    Started by spark-submit it takes master, memory and jars from there; started by plain Python it is
    `local[*]` on 127.0.0.1 with the jars of `TALLYHOUSE_SPARK_JARS`.

    Args:
        app_name: What Spark's pages and logs call it.

    Returns:
        A session in UTC, with ANSI semantics, that reads and writes `s3a://` by the `LAKE_*` variables.
    """
    builder = SparkSession.Builder().appName(app_name)
    settings = {**_SEMANTICS, **_TUNING, **s3a_settings()}
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        settings |= _LOCAL | local_conf(0, Machine.here())
        if jars := class_path():
            settings["spark.driver.extraClassPath"] = jars
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def s3a_settings() -> dict[str, str]:
    """Hadoop's S3A settings from `LAKE_ENDPOINT`, `LAKE_ACCESS_KEY` and `LAKE_SECRET_KEY`.

    Returns:
        Spark settings; empty where no endpoint is set, as in tests on local files.
    """
    endpoint = os.environ.get("LAKE_ENDPOINT")
    if not endpoint:
        return {}
    return {
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": os.environ.get("LAKE_REGION", "us-east-1"),
        "spark.hadoop.fs.s3a.access.key": os.environ["LAKE_ACCESS_KEY"],
        "spark.hadoop.fs.s3a.secret.key": os.environ["LAKE_SECRET_KEY"],
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": str(endpoint.startswith("https")).lower(),
        "spark.hadoop.fs.s3a.aws.credentials.provider": (
            "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider"
        ),
        # A server that is down is said within seconds, not after Hadoop's quarter of an hour.
        "spark.hadoop.fs.s3a.attempts.maximum": "3",
        "spark.hadoop.fs.s3a.retry.limit": "3",
        "spark.hadoop.fs.s3a.connection.establish.timeout": "5s",
        **_events_bucket(),
    }


def _events_bucket() -> dict[str, str]:
    """Address and keys of the events' bucket, which need not be the lake's."""
    bucket = os.environ.get("EVENTS_BUCKET")
    if not bucket or "EVENTS_ENDPOINT" not in os.environ:
        return {}
    prefix = f"spark.hadoop.fs.s3a.bucket.{bucket}"
    endpoint = os.environ["EVENTS_ENDPOINT"]
    return {
        f"{prefix}.endpoint": endpoint,
        f"{prefix}.connection.ssl.enabled": str(endpoint.startswith("https")).lower(),
        f"{prefix}.access.key": os.environ["EVENTS_ACCESS_KEY"],
        f"{prefix}.secret.key": os.environ["EVENTS_SECRET_KEY"],
    }


def class_path() -> str:
    """What `TALLYHOUSE_SPARK_JARS` names, a folder or jars with commas between, as a class path.

    On the class path rather than in `spark.jars`: those are copied, one by one, at every start.
    """
    value = os.environ.get("TALLYHOUSE_SPARK_JARS", "")
    return f"{value}/*" if value and Path(value).is_dir() else ":".join(value.split(","))
