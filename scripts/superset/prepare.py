"""Bring Superset's metadata to this version, set its one login, import the assets.

Run by `make superset` in Superset's own environment: one process for what its command line does in four.
"""

import os
import string
import sys
from pathlib import Path

import superset
from flask_migrate import upgrade
from superset.app import create_app

ROLE = "Admin"


def contents(folder: Path) -> dict[str, str]:
    """The assets by their paths, the places of servers filled in.

    Raises:
        KeyError: no setting has a placeholder's name.
    """
    found = {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*.yaml"))}
    return {
        name: string.Template(text).substitute(os.environ) if name.startswith("databases/") else text
        for name, text in found.items()
    }


def main() -> int:
    """Prepare all of it; safe to repeat."""
    app = create_app()
    with app.app_context():
        # What there is only inside the application.
        from superset import appbuilder  # noqa: PLC0415
        from superset import security_manager as manager  # noqa: PLC0415
        from superset.commands.exceptions import (  # noqa: PLC0415
            CommandInvalidError,
            ImportFailedError,
        )
        from superset.commands.importers.v1.assets import ImportAssetsCommand  # noqa: PLC0415
        from superset.utils.core import override_user  # noqa: PLC0415

        if sys.argv[1] == "upgrade":
            upgrade(directory=str(Path(superset.__file__).with_name("migrations")))
            appbuilder.add_permissions(update_perms=True)
            manager.sync_role_definitions()
        login, password = os.environ["SUPERSET_ADMIN_USER"], os.environ["SUPERSET_ADMIN_PASSWORD"]
        user = manager.find_user(login)
        if user is None:
            role = manager.find_role(ROLE)
            user = manager.add_user(login, "Tallyhouse", ROLE, f"{login}@localhost", role, password)
        else:
            manager.reset_password(user.id, password)
        assets_folder = Path(os.environ["SUPERSET_ASSETS"])
        assets = contents(assets_folder)
        passwords = {
            "databases/warehouse.yaml": os.environ["DWH_READER_PASSWORD"],
            "databases/clickhouse.yaml": os.environ["CLICKHOUSE_PASSWORD"],
        }
        try:
            with override_user(user):
                ImportAssetsCommand(assets, passwords=passwords).run()
        except CommandInvalidError as error:
            raise SystemExit(f"{assets_folder}: {error.normalized_messages()}") from error
        except ImportFailedError as error:
            raise SystemExit(f"{assets_folder}: {error.__cause__ or error!r}") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
