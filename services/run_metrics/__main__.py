"""Serves /metrics until it is stopped."""

import logging

from prometheus_client import CollectorRegistry

from services.common.probe import serve
from services.common.settings import ListenerSettings
from services.run_metrics.app import RunMetrics
from tallyhouse.settings import load_settings


def main() -> None:
    """Reads the settings, registers the metrics and serves them."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    settings = load_settings()
    registry = CollectorRegistry()
    registry.register(RunMetrics(settings))
    serve(
        settings.run_metrics_host,
        settings.run_metrics_port,
        service="run-metrics",
        registry=registry,
        hosts=ListenerSettings().allowed_hosts,
    ).join()


if __name__ == "__main__":
    main()
