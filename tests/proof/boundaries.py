"""The durable writes of a run, and where in the code each is made; one that is not here fails the proof."""

from __future__ import annotations

import re

KNOWN = {
    r"lake COMPLETE raw/.*/(part|digests/part|deleted/part|missing/part)": "extract/to_raw.py: write_parts",
    r"lake COMPLETE raw/.*/_manifest\.json": "lake/manifest.py: commit, the batch's one act",
    r"lake DELETE raw/.*": "lake/manifest.py: sweep",
    r"lake COMPLETE report/.*/validation/.*": "quality/check.py: what each suite found",
    r"lake COMPLETE report/.*/quality\.json": "quality/check.py: check",
    r"lake COMPLETE data-docs/.*": "quality/data_docs.py: the run's site, and the list of sites",
    r"lake (PUT|DELETE) accepted/.*": "spark_jobs/accepted.py: accept, by Spark's committer",
    r"lake (PUT|DELETE) increment/.*": "spark_jobs/increments.py: write, by Spark's committer",
    r"lake (PUT|COMPLETE|DELETE) removed/.*": "spark_jobs/transform.py: keys of rows that leave the models",
    r"lake DELETE objects": "Spark's committer, and what replaces an earlier try's files",
    r"lake COMPLETE report/.*/transform\.json": "spark_jobs/transform.py: transform",
    r"lake COMPLETE report/.*/outcome/.*": "lake/outcome.py: how the job ended",
    r"warehouse COMMIT staging\.keys": "models/affected.py: keys that the run's changes reach",
    r"warehouse COMMIT etl\.run": "runs.py: open_run and close_run",
    r"warehouse COMMIT etl\.ledger": "ledger/store.py: write",
    r"warehouse COMMIT staging\.[^,]*(, staging\.[^,]*)*": "publish/staging.py: create, copy_in, drop",
    r"warehouse COMMIT .*dwh\..*ods\..*": "publish/postgres.py: publish, the warehouse's one act",
    r"warehouse COMMIT etl\.run_target": "runs.py: published_runs and mark_shown",
    r"clickhouse (CREATE TABLE|ALTER TABLE|INSERT INTO) .* aside": "publish/targets/clickhouse: apply, marts",
    r"clickhouse EXCHANGE TABLES .* aside": "publish/targets/clickhouse: show, where nobody sees it",
    r"clickhouse INSERT INTO etl_run": "publish/targets/clickhouse: show, its one act",
    r"clickhouse DROP TABLE .* aside": "publish/targets/clickhouse: begin and abandon",
}


def of(write: str) -> str | None:
    """Where a write is made; None where nobody listed it."""
    return next((where for pattern, where in KNOWN.items() if re.fullmatch(pattern, write)), None)
