"""The Helm charts: puts their libraries in place, checks them, prints or installs the platform.

    python -m scripts.charts build
    python -m scripts.charts libraries
    python -m scripts.charts template ENVIRONMENT [RELEASE ...]
    python -m scripts.charts install ENVIRONMENT [RELEASE ...] [-- MORE ARGUMENTS OF HELM]
    python -m scripts.charts check

Releases, their namespaces and their order are those of infrastructure/helm/helmfile.yaml.gotmpl, so that
helmfile does the same where it is preferred.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from scripts.tools import helm, kube_score, kubeconform, kubernetes_schemas, operator_schemas, versions
from tallyhouse.settings import ROOT

HELM = ROOT / "infrastructure/helm"
LIBRARIES = HELM / "library-charts"
CHARTS = HELM / "charts"
HELMFILE = HELM / "helmfile.yaml.gotmpl"
ENVIRONMENTS = ("local", "dev", "staging", "production")


class ChartError(Exception):
    """What a person has to fix, in a few lines."""


@dataclass(frozen=True)
class Release:
    """One installation of a chart."""

    name: str
    namespace: str
    chart: Path
    values: tuple[Path, ...]
    needs: tuple[str, ...]


def run(*command: str, said: str | None = None) -> str:
    """Run a program.

    Returns:
        What it printed.

    Raises:
        ChartError: it failed; with what it said.
    """
    done = subprocess.run(command, input=said, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise ChartError(
            f"{Path(command[0]).name} {' '.join(command[1:3])}: {done.stderr.strip() or done.stdout}"
        )
    return done.stdout


# -- dependencies -----------------------------------------------------------------------------------


def digest(chart: Path) -> str:
    """What a chart's dependencies come from."""
    found = hashlib.sha256()
    for folder in (LIBRARIES, CHARTS / "postgres"):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.suffix != ".tgz" and file.name not in (".digest", "Chart.lock"):
                found.update(f"{file.relative_to(HELM)}\0".encode() + file.read_bytes())
    found.update((chart / "Chart.yaml").read_bytes())
    return found.hexdigest()


def put_in_place(chart: Path) -> None:
    """Give a chart the charts that it depends on, unless it has them as they are now."""
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text())
    if not metadata.get("dependencies"):
        return
    stamp, now = chart / "charts/.digest", digest(chart)
    if stamp.exists() and stamp.read_text() == now:
        return
    run(helm(), "dependency", "update", "--skip-refresh", str(chart))
    stamp.write_text(now)


def build(charts: Iterable[Path] | None = None) -> None:
    """Put the libraries into every chart: `common` into the others first, then those into the charts.

    Args:
        charts: the charts; those of the platform by default.
    """
    for name in ("service", "job"):
        put_in_place(LIBRARIES / name)
    put_in_place(CHARTS / "postgres")  # which others take in whole
    found = charts if charts is not None else all_charts()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(put_in_place, found))


def all_charts() -> list[Path]:
    """The platform's charts."""
    return sorted(file.parent for file in CHARTS.glob("*/Chart.yaml"))


# -- what the libraries share -----------------------------------------------------------------------


MARK = "# -- every pod's, from ../common/values.yaml: do not edit here\n"


def libraries() -> dict[Path, str]:
    """Values and schemas of `service` and `job`, with what a pod may be told as `common` has it.

    Returns:
        Each file's text as it has to be.
    """
    pod = json.loads((LIBRARIES / "common/values.schema.json").read_text())
    shared = pod["definitions"].pop("pod")["properties"]
    values = textwrap.dedent((LIBRARIES / "common/values.yaml").read_text().split("\npod:\n")[1])
    made = {}
    for name in ("service", "job"):
        file = LIBRARIES / name / "values.schema.json"
        schema = json.loads(file.read_text())
        own = {key: value for key, value in schema["properties"].items() if key not in shared}
        schema |= {"properties": shared | own, "definitions": pod["definitions"]}
        made[file] = json.dumps(schema, indent=2) + "\n"
        file = LIBRARIES / name / "values.yaml"
        made[file] = file.read_text().split(MARK)[0] + MARK + values
    return made


# -- releases ---------------------------------------------------------------------------------------


def releases(environment: str) -> list[Release]:
    """Every release of an environment, each after those that it needs."""
    _, text = HELMFILE.read_text().replace("{{ .Environment.Name }}", environment).split("\n---\n")
    found = {}
    for one in yaml.safe_load(text)["releases"]:
        name = one["name"]

        def path(said: str, name: str = name) -> Path:
            return HELM / said.replace("{{`{{ .Release.Name }}`}}", name)

        values = tuple(file for file in map(path, one["values"]) if file.exists())
        needs = tuple(need.split("/")[-1] for need in one.get("needs", ()))
        found[name] = Release(name, one["namespace"], path(one["chart"]), values, needs)
    ordered: list[Release] = []
    while len(ordered) < len(found):
        there = {release.name for release in ordered}
        ready = [r for r in found.values() if r.name not in there and set(r.needs) <= there]
        if not ready:
            raise ChartError(f"{HELMFILE.name}: releases that need each other, or one that is not there")
        ordered += ready
    return ordered


def chosen(environment: str, names: Iterable[str]) -> list[Release]:
    """Some releases of an environment, or all.

    Raises:
        ChartError: no release is called so.
    """
    every = releases(environment)
    wanted = set(names)
    if unknown := wanted - {release.name for release in every}:
        raise ChartError(
            f"no release is called {', '.join(sorted(unknown))}; there are {', '.join(r.name for r in every)}"
        )
    return [release for release in every if not wanted or release.name in wanted]


def value_arguments(release: Release) -> list[str]:
    """Helm's arguments for a release's values."""
    return [word for file in release.values for word in ("--values", str(file))]


def template(release: Release, *more: str) -> str:
    """The manifests of a release, as Helm would send them."""
    return run(
        *(helm(), "template", release.name, str(release.chart), "--namespace", release.namespace),
        *("--kube-version", versions()["cluster"]["kubernetes"]),
        *value_arguments(release),
        *more,
    )


def install(release: Release, *more: str) -> None:
    """Install a release, or bring it up to date, and wait until all of it is ready."""
    command = [
        *(helm(), "upgrade", "--install", release.name, str(release.chart), "--namespace", release.namespace),
        *("--wait", "--wait-for-jobs", "--timeout", "15m"),
        *value_arguments(release),
        *more,
    ]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise ChartError(f"{release.name}: not installed; kubectl get pods,events -n {release.namespace}")


# -- what judges them -------------------------------------------------------------------------------


def lint(release: Release) -> None:
    """Helm's own lint, strictly."""
    run(helm(), "lint", "--strict", "--quiet", str(release.chart), *value_arguments(release))


def conforms(manifests: str) -> None:
    """Compare manifests with the strict schemas of the pinned Kubernetes and of the operators.

    Raises:
        ChartError: with every object that differs.
    """
    run(
        *(kubeconform(), "-strict", "-summary"),
        *("-schema-location", f"{kubernetes_schemas()}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"),
        *(
            "-schema-location",
            f"{operator_schemas()}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json",
        ),
        "-",
        said=manifests,
    )


IGNORED = (
    # Tags here are versions, and servers have digests: to pull each time would change nothing.
    "container-image-pull-policy",
    # The documents ask for one endpoint; how often it may fail differs.
    "pod-probes-identical",
    # The accounts of the servers' own images are below 10,000.
    "container-security-context-user-group-id",
)
"""Tests of kube-score that are left out everywhere; what one object alone is let off stands in its annotation
kube-score/ignore."""


def policy(manifests: str) -> None:
    """Have kube-score judge manifests.

    Raises:
        ChartError: with what it finds critical.
    """
    command = [
        *(kube_score(), "score", "--output-format", "ci"),
        *("--kubernetes-version", "v" + ".".join(versions()["cluster"]["kubernetes"].split(".")[:2])),
        *(word for test in IGNORED for word in ("--ignore-test", test)),
        "-",
    ]
    done = subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)
    critical = [line for line in done.stdout.splitlines() if line.startswith("[CRITICAL]")]
    if done.returncode or critical:
        raise ChartError("kube-score: " + ("\n".join(critical) or done.stderr.strip() or done.stdout[-500:]))


def check() -> list[str]:
    """Lint, render and judge every chart in every environment.

    Returns:
        What is wrong, each with its release and environment.
    """
    wrong: list[str] = []
    for file, text in libraries().items():
        if file.read_text() != text:
            wrong.append(f"{file.relative_to(ROOT)}: not common's; run python -m scripts.charts libraries")
    build()

    def render(job: tuple[str, Release]) -> str:
        environment, release = job
        try:
            lint(release)
            return template(release)
        except ChartError as error:
            wrong.append(f"{environment}/{release.name}: {error}")
            return ""

    for environment in ENVIRONMENTS:
        with ThreadPoolExecutor(2) as pool:
            rendered = pool.map(render, [(environment, release) for release in releases(environment)])
            manifests = "\n---\n".join(rendered)
        # All at once: each start of a judge reads every schema.
        for judge in (conforms, policy):
            try:
                judge(manifests)
            except ChartError as error:
                wrong.append(f"{environment}: {error}")
    return wrong


def main() -> int:
    """Run one command; what a person has to fix is said without a traceback."""
    parser = argparse.ArgumentParser(prog="charts", description="The Helm charts.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="put the libraries into the charts")
    commands.add_parser("libraries", help="write what common says of a pod into the other libraries")
    commands.add_parser("check", help="lint, render and judge every chart in every environment")
    for name, said in (("template", "print manifests"), ("install", "install or bring up to date")):
        sub = commands.add_parser(name, help=said)
        sub.add_argument("environment", choices=ENVIRONMENTS)
        sub.add_argument("releases", nargs="*", metavar="release")
    words = sys.argv[1:]
    more = words[words.index("--") + 1 :] if "--" in words else []
    args = parser.parse_args(words[: words.index("--")] if "--" in words else words)
    try:
        if args.command == "libraries":
            for file, text in libraries().items():
                file.write_text(text)
            return 0
        if args.command == "check":
            wrong = check()
            print("\n".join(wrong))
            return int(bool(wrong))
        build()
        if args.command == "build":
            return 0
        for release in chosen(args.environment, args.releases):
            if args.command == "template":
                sys.stdout.write(template(release, *more))
            else:
                print(f"-- {release.namespace}/{release.name}", flush=True)
                install(release, *more)
    except (ChartError, OSError) as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
