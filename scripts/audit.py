"""Known vulnerabilities in what the locks name: `make audit`.

Each audit asks a database on the network. One that cannot be asked has audited nothing, and that is said:
the command succeeds only if every list was compared and nothing was found.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tallyhouse.settings import ROOT, load_settings

CLEAN, VULNERABLE, NOT_AUDITED = 0, 1, 2
PIP_AUDIT = "pip-audit==2.9.0"

console = Console(highlight=False)


@dataclass(frozen=True)
class Audit:
    """One list of packages, and the tool that compares it with a database."""

    name: str
    command: list[str]
    as_json: list[str]
    """Options that make the tool report in JSON."""
    reported: str
    """A key that its JSON has only if the comparison took place; none where the exit code tells."""
    folder: Path = ROOT


def audits(uv: str) -> list[Audit]:
    """Every list of packages that this repository locks.

    Args:
        uv: the program.
    """
    pip_audit = [uv, "tool", "run", "--quiet", PIP_AUDIT, "--vulnerability-service", "osv", "--no-deps"]
    pip_audit += ["--disable-pip", "--progress-spinner", "off"]
    return [
        Audit(
            "Python packages of uv.lock",
            [uv, "audit", "--frozen", "--preview-features", "audit-command"],
            ["--output-format", "json"],
            "",
        ),
        Audit(
            "Python packages of Superset",
            [*pip_audit, "--requirement", "scripts/superset/requirements.txt"],
            ["--format", "json"],
            "dependencies",
        ),
        Audit(
            "Node packages of the schema compiler",
            ["npm", "audit", "--audit-level", "high", "--omit", "dev"],
            ["--json"],
            "auditReportVersion",
            ROOT / "scripts/dbml",
        ),
    ]


def run(audit: Audit) -> tuple[int, str]:
    """Compare one list with its database.

    Returns:
        CLEAN, VULNERABLE or NOT_AUDITED, and what the tool said.
    """
    try:
        done = _run([*audit.command, *audit.as_json], audit.folder)
    except OSError as error:
        return NOT_AUDITED, f"{audit.command[0]}: {error.strerror}"
    try:
        report = json.loads(done.stdout)
        compared = done.returncode in (0, 1) and (not audit.reported or audit.reported in report)
    except ValueError:
        report, compared = {}, False
    if not compared:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        message = report.get("message") if isinstance(report, dict) else None
        return NOT_AUDITED, str(message or (said[-1] if said else f"exit code {done.returncode}"))[:300]
    if done.returncode == 0:
        return CLEAN, ""
    again = _run(audit.command, audit.folder)  # the same, to be read
    return VULNERABLE, (again.stdout + again.stderr).strip()


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def main() -> int:
    """Run every audit and say what each found.

    Returns:
        0 if all lists are clean, 1 if one is not, 2 if one could not be compared.
    """
    uv = shutil.which("uv") or next(map(str, load_settings().cache.glob("tools/uv-*/bin/uv")), "uv")
    codes = []
    for audit in audits(uv):
        code, said = run(audit)
        codes.append(code)
        if code == CLEAN:
            console.print(f"  [green]✓[/] {audit.name}: nothing known")
        elif code == VULNERABLE:
            console.print(f"  [red]✗[/] {audit.name}: known vulnerabilities")
            console.print(said, markup=False, soft_wrap=True)
        else:
            console.print(f"  [yellow]?[/] {audit.name}: NOT AUDITED: ", end="")
            console.print(said, markup=False, soft_wrap=True)
    if NOT_AUDITED in codes:
        console.print(
            "The vulnerability database could not be asked, so nothing is known about the lists marked '?'. "
            "Run `make audit` where the network reaches it, or look at CI's job 'audit'.",
            soft_wrap=True,
        )
    return VULNERABLE if VULNERABLE in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
