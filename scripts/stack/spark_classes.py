"""What set-up runs once in Spark, so that its JVM can archive the classes that jobs load.

    spark-submit --conf "spark.driver.extraJavaOptions=-XX:ArchiveClassesAtExit=…" spark_classes.py <folder>

A transform of a few made-up rows, on local files: accepted rows and models of TechMarket. S3 and the
warehouse are only asked for, at an address where nobody answers.
"""

import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from spark_jobs.accepted import accept
from spark_jobs.increments import Increments, levels
from spark_jobs.job_lake import JobLake
from spark_jobs.models.common import newest_of
from spark_jobs.session import build_session
from spark_jobs.warehouse import Warehouse
from tallyhouse.contracts import load_pipeline
from tallyhouse.servers import PostgresServer

NOBODY = "127.0.0.1:1"


def main(folder: Path) -> None:
    """Runs the transform below a folder."""
    folder.mkdir()
    os.environ |= {
        "LAKE_BASE": folder.as_uri(),
        "LAKE_ENDPOINT": f"http://{NOBODY}",
        "LAKE_ACCESS_KEY": "nobody",
        "LAKE_SECRET_KEY": "nobody",
    }
    spark = build_session("classes")
    lake = JobLake.from_environment()
    pipeline = load_pipeline("techmarket")
    warehouse = Warehouse(PostgresServer.parse(f"postgresql://nobody:nobody@{NOBODY}/nobody"))
    run = Increments(spark, lake, pipeline, "classes", {}, warehouse, None)
    rows = {}
    for number, table in enumerate(pipeline.tables):
        nothing = F.lit(None).cast("string")
        raw = spark.range(20).select(
            *(
                (F.col("id").cast("string") if name == table.key[0] else nothing).alias(name)
                for name in table.column_names
            )
        )
        report = accept(
            raw,
            table,
            run_id="classes",
            snapshot_at=datetime.now(UTC),
            target=lake.uri(f"accepted/{table.source}/{table.name}/run=classes"),
            unique=bool(number % 2),
        )
        rows[table.name] = report.accepted
    run.rows = rows
    for level in levels(pipeline.name):
        for model in level:
            run.written[model.name] = run.write(model)
    table = pipeline.tables[0]
    accepted = run.accepted(table)
    newest_of(accepted, accepted.withColumn("_deleted_at", F.lit(None).cast("timestamp")), table).count()
    with suppress(PySparkException):
        warehouse.read(spark, "SELECT 1 AS one", {}, "one").count()
    spark.conf.set("fs.s3a.attempts.maximum", "1")
    spark.conf.set("fs.s3a.retry.limit", "0")
    with suppress(PySparkException, Py4JJavaError):  # a refused connection is an exception of Java's own
        spark.read.parquet("s3a://nobody/nothing").count()
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
