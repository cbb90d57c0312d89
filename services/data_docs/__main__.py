"""Serves the Data Docs until it is stopped."""

import uvicorn

from services.common.serve import configuration
from services.common.settings import ListenerSettings
from services.data_docs.app import application
from tallyhouse.settings import load_settings


def main() -> None:
    """Reads the settings and serves the lake's Data Docs."""
    settings = load_settings()
    app = application(settings, ListenerSettings().allowed_hosts)
    options = configuration(app, settings.data_docs_host, settings.data_docs_port, log_level="warning")
    uvicorn.Server(options).run()


if __name__ == "__main__":
    main()
