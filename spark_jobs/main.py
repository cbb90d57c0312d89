"""What the mains share: arguments, logging, and the outcome that a job leaves in the lake."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from spark_jobs.job_lake import JobLake
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake.outcome import Outcome


def run_job(job: Callable[[str, str], None]) -> None:
    """Reads `--pipeline`, `--run-id` and `--attempt`, runs the job and ends the process.

    How it ended stands in the lake, in the JSON object of `tallyhouse.lake.outcome`. The process ends
    with 1 and one line on standard error where the job refuses its input; what is not foreseen keeps its
    traceback.
    """
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").partition("\n")[0])
    parser.add_argument("--pipeline", required=True, help="such as techmarket")
    parser.add_argument("--run-id", required=True, help="the run whose raw batches are committed")
    parser.add_argument("--attempt", default="by hand", help="whose outcome this is; the operator's to say")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(message)s")
    # Of the libraries only warnings: py4j and Great Expectations log every call at INFO.
    logging.getLogger("spark_jobs").setLevel(logging.INFO)
    logging.getLogger("tallyhouse").setLevel(logging.INFO)

    def report(error: Exception | None = None) -> None:
        outcome = Outcome.of(arguments.attempt, error)
        outcome.write(JobLake.from_environment().lake, arguments.pipeline, arguments.run_id, job.__name__)

    try:
        job(arguments.pipeline, arguments.run_id)
        report()
    except Exception as error:
        if isinstance(error, TallyhouseError):
            error.add_context(f"pipeline {arguments.pipeline}", arguments.run_id)
        try:
            report(error)
        except (TallyhouseError, OSError) as unwritten:
            # What the job said matters more than why it could not be written down.
            logging.getLogger("spark_jobs").warning("the outcome was not written: %s", unwritten)
        if not isinstance(error, TallyhouseError):
            raise
        sys.stdout.flush()
        sys.exit(str(error))
