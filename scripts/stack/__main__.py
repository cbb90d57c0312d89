"""``python -m scripts.stack``."""

from scripts.stack.cli import main

main()
