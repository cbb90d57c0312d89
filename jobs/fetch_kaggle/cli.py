"""The command: `python -m jobs.fetch_kaggle --help`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from pydantic import ValidationError

from jobs.fetch_kaggle.errors import FetchError
from jobs.fetch_kaggle.fetch import fetch_all, plan
from jobs.fetch_kaggle.settings import Settings, read_wanted

DESCRIPTION = """\
Brings the datasets of datasets.yaml from Kaggle to KAGGLE_DATA_ROOT, copies them to the lake and enters them
in the catalogue. What is there already is left alone, and what an earlier run left half done is gone on with.
It ends with 0 when every dataset is there, 1 when one failed, 2 when nothing could be begun.
"""


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m jobs.fetch_kaggle", description=DESCRIPTION)
    parser.add_argument("refs", nargs="*", metavar="owner/dataset", help="only these of the file")
    parser.add_argument("--datasets", type=Path, help="the file of datasets (FETCH_KAGGLE_DATASETS)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, and write nothing")
    parser.add_argument("--verify", action="store_true", help="compare the checksums of what is there, too")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = Settings()  # type: ignore[call-arg]  # filled from the environment
        wanted = read_wanted(options.datasets or settings.fetch_kaggle_datasets, options.refs)
        if options.dry_run:
            sys.stdout.write("".join(f"{line}\n" for line in plan(settings, wanted)))
            return 0
        outcomes = fetch_all(settings, wanted, thorough=options.verify)
    except ValidationError as error:
        wrong = "; ".join(f"{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        sys.stderr.write(f"settings: {wrong}; set it in the environment\n")
        return 2
    except FetchError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return int(any(outcome.held is None for outcome in outcomes))
