"""What watches the stack: the metrics of runs, and a Prometheus that scrapes every service."""

import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from scripts.prometheus_login import write_login
from scripts.stack import fetch, readiness
from scripts.stack.accounts import account
from scripts.stack.context import Stack, StackError
from scripts.stack.service import Service
from tallyhouse.settings import Settings


def watchers(stack: Stack) -> list[Service]:
    """Every service of the group."""
    s = stack.settings
    config = stack.run / "prometheus" / "prometheus.yml"
    data = stack.data / "prometheus"
    home = fetch.prometheus_home(stack)
    login = (s.prometheus_user, s.prometheus_password)

    def prepare() -> None:
        if not fetch.prometheus(stack).exists():
            raise StackError(
                "prometheus: not found; install it, or start the rest: make start GROUPS=nightly,events,apps"
            )
        write_config(stack, config)
        write_login(config.parent / "login", *login, account(stack, "prometheus"))

    command = [
        # Where it stands the fetched one finds its pages.
        *("env", f"--chdir={home if home.exists() else stack.root}"),
        *(str(fetch.prometheus(stack)), f"--config.file={config}", f"--storage.tsdb.path={data}"),
        *(
            f"--web.listen-address={s.prometheus_host}:{s.prometheus_port}",
            "--storage.tsdb.retention.time=15d",
        ),
        # It cannot check Host, so a web page reaches it under any name: the login keeps it from reading.
        *(f"--web.config.file={config.parent / 'login/web.yml'}", "--web.cors.origin=none"),
        "--log.level=warn",
    ]
    return [
        Service(
            "run-metrics",
            f"{shlex.quote(sys.executable)} -m services.run_metrics",
            {"RUN_METRICS_PORT": s.run_metrics_port},
            ready=lambda: readiness.http(f"http://{s.run_metrics_host}:{s.run_metrics_port}/metrics"),
            after=("migrations",),
            account="run-metrics",
            group="watch",
        ),
        Service(
            "prometheus",
            shlex.join(command),
            {"PROMETHEUS_PORT": s.prometheus_port},
            ready=lambda: readiness.http(f"{s.prometheus_url}/-/ready", login),
            prepare=prepare,
            account="prometheus",
            owns=(data,),
            told=(),
            url=f"{s.prometheus_url}/classic/alerts",
            group="watch",
        ),
    ]


def targets(s: Settings) -> dict[str, str]:
    """Where each job of observability/prometheus.yml is natively."""
    return {
        "ingest": f"{s.ingest_host}:{s.ingest_port}",
        "ingest-relay": f"{s.ingest_host}:{s.ingest_relay_port}",
        "consumer": f"{s.ingest_host}:{s.consumer_port}",
        "pancake": f"{s.pancake_host}:{s.pancake_port}",
        "kaggle-data-api": f"{s.kaggle_data_host}:{s.kaggle_data_port}",
        "pipeline-info": f"{s.pipeline_info_host}:{s.pipeline_info_port}",
        "runs": f"{s.run_metrics_host}:{s.run_metrics_port}",
        "minio": f"{s.minio_host}:{s.minio_port}",
        "prometheus": f"{s.prometheus_host}:{s.prometheus_port}",
    }


def write_config(stack: Stack, to: Path) -> None:
    """Write observability/prometheus.yml as it is natively: the same jobs and rules at other addresses.

    Raises:
        StackError: a job that nobody has an address for.
    """
    folder = stack.root / "observability"
    config: dict[str, Any] = yaml.safe_load((folder / "prometheus.yml").read_text())
    here = targets(stack.settings)
    for job in config["scrape_configs"]:
        if job["job_name"] not in here:
            raise StackError(f"prometheus: job {job['job_name']} has no address in scripts/stack/watch.py")
        job["static_configs"] = [{"targets": [here[job["job_name"]]]}]
        if "basic_auth" in job:
            job["basic_auth"]["username"] = stack.settings.prometheus_user
    config["rule_files"] = [str(folder / rules) for rules in config["rule_files"]]
    to.parent.mkdir(parents=True, exist_ok=True)
    to.parent.chmod(0o711)
    to.write_text(yaml.safe_dump(config, sort_keys=False))
    to.chmod(0o644)  # the password is in a file of its own, and Prometheus' account reads it
