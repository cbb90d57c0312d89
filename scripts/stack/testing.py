"""`make test`: a stack of its own, fresh each time and away from a running one; then pytest."""

import fcntl
import os
import signal
import subprocess
import sys
from types import FrameType

from scripts.stack import fetch, lifecycle
from scripts.stack.context import Stack, StackError, console
from scripts.stack.demo import tool
from scripts.stack.supervise import Supervisor

# Beside the default ports, and below the range that the kernel gives to clients.
PORT_OFFSET = "20000"
FOLDER = ".local/test"
SCALE = "0.02"

# What the tests of the package's modules measure their coverage of.
PACKAGE = "include/tallyhouse"


def test_stack() -> Stack:
    """The stack that tests run on: other ports and another folder than this checkout's own."""
    os.environ["PORT_OFFSET"] = os.environ.get("TEST_PORT_OFFSET", PORT_OFFSET)
    os.environ["TALLYHOUSE_LOCAL"] = os.environ.get("TEST_LOCAL", FOLDER)
    return Stack()


def run_tests(stack: Stack, arguments: list[str]) -> int:
    """Start a fresh stack with a little data in it, run pytest in its environment, stop it.

    Args:
        stack: from `test_stack`.
        arguments: for pytest.

    Returns:
        What pytest returned; its closing lines are the last ones printed.

    Raises:
        StackError: other tests use the folder, or the stack does not start.
    """
    signal.signal(signal.SIGTERM, _interrupt)  # so that what was started is stopped
    stack.local.mkdir(parents=True, exist_ok=True)
    with (stack.local / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StackError(f"test: other tests use {stack.local}; wait, or set TEST_LOCAL") from error
        if Supervisor(stack).alive():  # left by tests that were killed
            lifecycle.stop(stack)
        lifecycle.clean(stack)
        stack = Stack()  # with passwords of its own: the old ones are gone
        try:
            lifecycle.start(stack)
            tool(stack, "techmarket", "data", "--scale", SCALE)
            try:
                chromium = fetch.ensure_chromium(stack)
            except StackError as error:
                console.print(f"  [yellow]·[/] {error}; tests of the web UI are skipped")
                chromium = ""
            # Its own process group: an interrupt reaches pytest once, by us.
            tests = subprocess.Popen(
                [sys.executable, "-m", "pytest", *arguments],
                cwd=stack.root,
                env=os.environ | stack.environment | {"TALLYHOUSE_CHROMIUM": chromium},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                umask=0o022,  # as a developer has it who runs pytest by hand
            )
            try:
                return tests.wait()
            except BaseException:
                os.killpg(tests.pid, signal.SIGINT)
                tests.wait(timeout=60)
                raise
        finally:
            lifecycle.stop(stack)


def run_unit_tests(stack: Stack, arguments: list[str]) -> int:
    """Run the tests of the package's modules that need neither a server nor Spark, and say what they cover.

    Args:
        stack: whose tools they use; nothing of it has to run.
        arguments: for pytest.

    Returns:
        What pytest returned.
    """
    tests = [
        str(path.relative_to(stack.root))
        for path in sorted((stack.root / "tests").iterdir())
        if (stack.root / PACKAGE / path.name).is_dir()
        or (stack.root / PACKAGE / path.name.removeprefix("test_")).is_file()
    ]
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *tests, "-m", "not integration and not spark"),
            *("-q", f"--cov={PACKAGE}", "--cov-report=term:skip-covered", *arguments),
        ],
        cwd=stack.root,
        env=os.environ | stack.environment,
        check=False,
    ).returncode


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
