"""`python -m jobs.fetch_kaggle`: see `--help`."""

import sys

from jobs.fetch_kaggle.cli import main

sys.exit(main())
