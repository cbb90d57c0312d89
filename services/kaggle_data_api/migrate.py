"""Moves the database between revisions, and starts new ones.

    python -m services.kaggle_data_api.migrate up                        to the newest revision
    python -m services.kaggle_data_api.migrate down -1                   one back; down 0001, down base
    python -m services.kaggle_data_api.migrate create "What it does"     a new one, to be written

`make migrate-up`, `migrate-down` and `migrate-create NAME="What it does"` do the same for the running stack.
Going back drops the columns that a revision added, with what is in them. The rest is
`services.common.migrate`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from services.common.migrate import Migrations, main, postgres
from services.kaggle_data_api.settings import Settings


def migrations(settings: Settings) -> Migrations:
    """The revisions of the database that the settings name."""
    return Migrations(
        name="datasets",
        where=settings.where,
        engine=lambda: postgres(settings.database_url.get_secret_value()),
        folders=[Path(__file__).with_name("migrations")],
    )


if __name__ == "__main__":
    sys.exit(main("python -m services.kaggle_data_api.migrate", lambda: migrations(Settings())))
