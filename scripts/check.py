"""Every linter and drift check of the repository: all of them, or those named.

python -m scripts.check [name ...]
python -m scripts.check --write-requirements
"""

import argparse
import difflib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from scripts import charts
from scripts.compose_env import demanded
from scripts.tools import go_tool
from scripts.verify import engine, images
from tallyhouse.settings import ROOT, load_settings

console = Console(highlight=False)

REQUIREMENTS = ROOT / "requirements.txt"
HEAD = """\
# Exported from uv.lock by `make requirements`; do not edit. For Python 3.12.
#
# `pip install --no-deps -r requirements.txt` is what the lock says; the list is complete.
# Without --no-deps, pip also compiles mysqlclient, which Airflow's MySQL provider asks for and nothing
# here uses: that needs a C compiler and, on Debian, pkg-config and default-libmysqlclient-dev.
"""
ACTIONLINT = "v1.7.12"
BIN = Path(sys.executable).parent


def run(*command: str, **environment: str) -> str | None:
    """Run a checker in the repository.

    Args:
        command: The checker and its arguments.
        environment: More of its environment.

    Returns:
        What it said if it failed, else None.
    """
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout.strip() or f"failed with {done.returncode}" if done.returncode else None


def parse_oltp() -> str | None:
    """Parse the generated schemas in their dialects; their layout is the generator's affair."""
    said = []
    for script in sorted((ROOT / "sql/oltp").glob("*.sql")):
        dialect = "postgres" if "pancake" in script.name else "mysql"
        where = script.relative_to(ROOT)
        said.append(run("sqlfluff", "lint", "--dialect", dialect, "--rules", "LT12", str(where)))
    return "\n".join(filter(None, said)) or None


def exported() -> str:
    """The lock as requirements.txt.

    Raises:
        OSError: uv is not there.
    """
    uv = shutil.which("uv") or next(iter(load_settings().cache.glob("tools/uv-*/bin/uv")), None)
    if uv is None:
        raise OSError("uv: not found; scripts/bootstrap.sh installs it")
    command = [str(uv), "export", "--frozen", "--no-dev", "--no-emit-project"]
    command += ["--no-hashes", "--no-header", "--no-annotate"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    # The lock leaves it out, for it writes into pyspark's folder; pip, which cannot, must at least
    # take pyspark's own version.
    kept = text.replace("pyspark-client==4.2.0 ; sys_platform == 'never'", "pyspark-client==4.2.0")
    return HEAD + "".join(line for line in kept.splitlines(keepends=True) if "'never'" not in line)


def requirements() -> str | None:
    """See that requirements.txt is the lock's."""
    here = REQUIREMENTS.read_text().splitlines() if REQUIREMENTS.exists() else []
    differs = list(difflib.unified_diff(here, exported().splitlines(), "requirements.txt", "uv.lock", n=0))
    return "\n".join([*differs[:12], "run `make requirements`"]) if differs else None


def docker_compose() -> list[str]:
    """Docker Compose: the machine's, else Debian's. To read a file it needs no engine.

    Raises:
        OSError: There is none, and it cannot be had from here.
    """
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and run(*command, "version") is None:
            return command
    return [str(engine.docker_compose(load_settings().cache))]


def compose() -> str | None:
    """Let Docker Compose read docker-compose.yaml, every profile, with every password that it demands."""
    passwords = dict.fromkeys(demanded((ROOT / "docker-compose.yaml").read_text()), "x")
    command = [*docker_compose(), "--env-file", os.devnull, "--profile", "*", "config", "--quiet"]
    return run(*command, **passwords)


def docker() -> str | None:
    """Lint every Dockerfile."""

    def lint(files: Iterable[Path], *options: str) -> str | None:
        return run("hadolint", *options, *(str(file.relative_to(ROOT)) for file in sorted(files)))

    # A stand-in takes what its suite has today.
    return lint(images.dockerfiles()) or lint(images.STAND_INS.glob("*.Dockerfile"), "--ignore", "DL3008")


def helm_charts() -> str | None:
    """Lint every chart, and judge what it renders in every environment."""
    return "\n".join(charts.check()) or None


def workflows() -> str | None:
    """Lint the workflows of GitHub Actions."""
    actionlint = f"github.com/rhysd/actionlint/cmd/actionlint@{ACTIONLINT}"
    return run(go_tool(f"actionlint-{ACTIONLINT}", "install", actionlint), "-no-color")


# What gave way to a plainer word (docs/glossary.md).
WITHDRAWN = (
    r"subjects?|laws?|mend(s|ed|ing)?|closures?|fates?|overtaken|kept aside|nights?_[a-z_]+"
    "|one (row|line|file|table|suite|event|object|site|module|snapshot|program|document) an? [a-z]+"
)
# Where such a word has another meaning, or names what was called so once.
ANOTHER_MEANING = (
    *(
        "sql/*/migrations/*",
        "tests/warehouse/test_migrate.py",
        "scripts/check.py",
        "CHANGELOG.md",
        # Kubernetes has bindings of subjects.
        "infrastructure/helm/library-charts/common/templates/_serviceaccount.yaml",
        "tests/helm/golden/*",
        "*/vendor/*",
        # Certificates have a subject, and so has a figure of a benchmark.
        *("tests/servers/test_servers.py", "benchmarks/*/run.py"),
    ),
    *("services/common/security.py", "include/tallyhouse/contracts/load.py", "tests/warehouse/schema.py"),
    *("include/techmarket/catalog.py", "include/techmarket/orders.py", "docs/guides/data.md"),
    *("dashboards/superset/charts", "include/tallyhouse/events/publish.py", "services/pipeline_info/flow.py"),
)


def words() -> str | None:
    """See that no withdrawn word is back."""
    kinds = [f"*.{kind}" for kind in ("md", "py", "sql", "html", "js", "yaml", "yml", "json", "dbml", "env")]
    paths = [*kinds, "Makefile", *(f":!{path}" for path in ANOTHER_MEANING)]
    found = subprocess.run(
        ["git", "grep", "-nIiwE", WITHDRAWN, "--", *paths],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = found.stdout + found.stderr
    return f"{said}use the words of docs/glossary.md" if said else None


CHECKS: dict[str, Callable[[], str | None]] = {
    "format": lambda: run("ruff", "format", "--check", "."),
    "lint": lambda: run("ruff", "check", "."),
    "types": lambda: run("mypy"),
    "sql-dwh": lambda: run("sqlfluff", "lint", "sql/dwh"),
    "sql-clickhouse": lambda: run("sqlfluff", "lint", "sql/clickhouse"),
    "sql-oltp": parse_oltp,
    "dbml": lambda: run("scripts/dbml.sh", "--check"),
    "models": lambda: run("python", "-m", "tallyhouse.models", "check"),
    "dags-md": lambda: run("python", "scripts/dags_md.py", "--check"),
    "requirements": requirements,
    "compose": compose,
    "docker": docker,
    "workflows": workflows,
    "words": words,
    "charts": helm_charts,
    "translations": lambda: run("python", "-m", "scripts.translations"),
    "picture": lambda: run("python", "-m", "scripts.picture", "--check"),
    "site": lambda: run("python", "-m", "scripts.site"),
}


def main() -> int:
    """Run the checks, each to its end.

    Returns:
        1 if one failed.
    """
    parser = argparse.ArgumentParser(description="Every linter and drift check.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(CHECKS)}; all by default")
    parser.add_argument("--write-requirements", action="store_true", help="export requirements.txt and stop")
    args = parser.parse_args()
    if unknown := set(args.names) - set(CHECKS):
        parser.error(f"no check is called {', '.join(sorted(unknown))}")
    if args.write_requirements:
        REQUIREMENTS.write_text(exported())
        return 0
    failed = False
    for name in args.names or CHECKS:
        began = time.monotonic()
        try:
            said = CHECKS[name]()
        except OSError as error:  # a tool that is not there
            said = str(error)
        failed |= said is not None
        sign = "[green]✓[/]" if said is None else "[red]✗[/]"
        console.print(f"  {sign} {name} [dim]{time.monotonic() - began:.1f} s[/]")
        if said is not None:
            console.print(said, markup=False, soft_wrap=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
