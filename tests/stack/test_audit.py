"""An audit that could not ask its database is never taken for a clean one."""

import sys

import pytest

from scripts.audit import CLEAN, NOT_AUDITED, VULNERABLE, Audit, run


def tool(code: int, stdout: str, stderr: str = "") -> list[str]:
    program = f"import sys; print({stdout!r}); print({stderr!r}, file=sys.stderr); sys.exit({code})"
    return [sys.executable, "-c", program]


@pytest.mark.parametrize(
    ("command", "reported", "expected"),
    [
        (tool(0, '{"dependencies": []}'), "dependencies", CLEAN),
        (tool(1, '{"dependencies": [1]}'), "dependencies", VULNERABLE),
        (tool(1, "", "Failed to resolve 'api.osv.dev'"), "dependencies", NOT_AUDITED),
        (tool(1, '{"message": "405 Method Not Allowed"}'), "dependencies", NOT_AUDITED),
        (tool(0, ""), "dependencies", NOT_AUDITED),
        (tool(0, "{}"), "", CLEAN),
        (tool(1, "{}"), "", VULNERABLE),
        (tool(2, "{}", "dns error"), "", NOT_AUDITED),
        (["no-such-tool"], "", NOT_AUDITED),
    ],
)
def test_what_an_audit_comes_to(command: list[str], reported: str, expected: int) -> None:
    code, said = run(Audit("packages", command, [], reported))
    assert code == expected
    assert bool(said) is (expected != CLEAN)
