"""Events: from the JSON objects that ingest writes to partitioned Parquet, each object taken exactly once.

`reading` judges a line, `take` brings a run's objects into a raw batch, `table` is the curated
table, `publish` commits a run to it. Spark's part is `spark_jobs/curate.py`.
"""
