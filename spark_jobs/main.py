"""What the mains share: arguments, logging, and one line for a person when a job fails."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from tallyhouse.errors import TallyhouseError


def run_job(job: Callable[[str, str], None]) -> None:
    """Reads `--subject` and `--run-id`, runs the job and ends the process.

    The process ends with 1 and one line on standard error where the job refuses its input; what is
    not foreseen keeps its traceback.
    """
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").partition("\n")[0])
    parser.add_argument("--subject", required=True, help="such as techmarket")
    parser.add_argument("--run-id", required=True, help="the run whose raw batches are committed")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(message)s")
    # Of the libraries only warnings: py4j and Great Expectations log every call at INFO.
    logging.getLogger("spark_jobs").setLevel(logging.INFO)
    try:
        job(arguments.subject, arguments.run_id)
    except TallyhouseError as error:
        sys.stdout.flush()
        # The operator looks for this word among the last lines of the log.
        sys.exit(f"TALLYHOUSE: {error}")
