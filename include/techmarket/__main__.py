"""Entry point of ``python -m techmarket``."""

import sys

from techmarket.cli import main

sys.exit(main())
