"""Entry point of ``python -m tallyhouse.generate``."""

import sys

from tallyhouse.generate.cli import main

sys.exit(main())
