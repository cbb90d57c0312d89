"""Events: from the JSON objects that ingest writes to partitioned Parquet, each object taken exactly once.

`reading` judges a line, `take` brings a run's objects into a raw batch, `log` is the curated table's
commit log, `publish` commits a run to it. Spark's part is `spark_jobs/curate.py`.
"""
