"""Removes lineage that nobody reports any more: `python -m services.pipeline_info.retire --days 90`.

Until then the pages and the graph hide it (PIPELINE_INFO_LINEAGE_DAYS), and `retired=true` shows it.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta

from services.pipeline_info.repository import StoreUnavailableError
from services.pipeline_info.settings import Settings
from services.pipeline_info.stores import open_lineage, open_store


def main(arguments: list[str] | None = None) -> int:
    """Remove old lineage from the store of the settings."""
    settings = Settings()
    parser = argparse.ArgumentParser(prog="python -m services.pipeline_info.retire", description=__doc__)
    parser.add_argument(
        "--days",
        type=int,
        default=settings.lineage_days * 3,
        help="remove what was not reported for so many days (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only count")
    options = parser.parse_args(arguments)
    if options.days < 1:
        parser.error(f"--days {options.days}: give 1 or more")
    store = open_store(settings)
    try:
        before = datetime.now(UTC) - timedelta(days=options.days)
        counts = open_lineage(settings, store).retire(before, dry=options.dry_run)
    except (StoreUnavailableError, OverflowError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        store.close()
    what = ", ".join(f"{count} {name}" for name, count in counts.items())
    done = "would be removed" if options.dry_run else "removed"
    sys.stdout.write(f"last reported before {before:%Y-%m-%d %H:%M} UTC: {what} {done}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
