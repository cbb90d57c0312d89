"""Command line: ``python -m techmarket data | day | verify``."""

import argparse
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from tallyhouse.errors import TallyhouseError
from tallyhouse.settings import Settings, SettingsError, load_settings
from techmarket.business_time import FIRST_DAY, LAST_DAY
from techmarket.load import fill, state
from techmarket.progress import Progress
from techmarket.shop import Shop
from techmarket.sizes import Sizes
from techmarket.stores import alone
from techmarket.verify import count, show

SEED = 20260101
SPAN = f"the business days {FIRST_DAY} to {LAST_DAY}"


def _scale(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1000")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    made = argparse.ArgumentParser(
        prog="python -m techmarket",
        description="Test data for TechMarket's stores and the pancake shop.",
    )
    commands = made.add_subparsers(dest="command", required=True)

    data = commands.add_parser(
        "data",
        help="fill empty stores with 18 months of business",
        description=f"Fill empty stores with {SPAN}. The same "
        "seed and scale give the same rows, but for created_at and updated_at, which the servers set.",
    )
    data.add_argument("--scale", type=_scale, default=0.1, help="1 is about a million rows (default: 0.1)")
    data.add_argument("--seed", type=int, default=SEED, help=f"of all draws (default: {SEED})")
    other = data.add_mutually_exclusive_group()
    other.add_argument("--replace", action="store_true", help="empty all stores first")
    other.add_argument(
        "--if-empty", action="store_true", help="do nothing when the stores are filled already"
    )

    day = commands.add_parser(
        "day",
        help="play one more business day onto filled stores",
        description="Play the business day after the newest one in the stores: new rows, changed rows, "
        "and vanished ones.",
    )
    day.add_argument("--seed", type=int, default=SEED, help=f"of all draws (default: {SEED})")
    day.add_argument(
        "--deletes",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="delete some sessions, orders, addresses and pancakes too",
    )

    commands.add_parser(
        "verify",
        help="count the rows of every table",
        description="Count the rows of every table in every store; exits with 1 when a store cannot be read.",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line; the process's own by default.

    Returns:
        The exit status: 0, or 1 after an error, which was printed in one line.
    """
    asked = parser().parse_args(arguments)
    console = Console()
    try:
        settings = load_settings()
        match asked.command:
            case "data":
                _data(asked, settings, console)
            case "day":
                from techmarket.day import play  # noqa: PLC0415 - not needed by the others

                with alone(settings):
                    play(settings, asked.seed, console, deletes=asked.deletes)
            case "verify":
                return _verify(settings, console)
    except (TallyhouseError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; make data starts over where a load was cut short", file=sys.stderr)
        return 130
    return 0


def _data(asked: argparse.Namespace, settings: Settings, console: Console) -> None:
    if asked.if_empty:
        filled, broken = state(settings)
        if filled and not broken:
            console.print("The stores are filled already; nothing to do.")
            return
    started = time.monotonic()
    shop = Shop(asked.seed, Sizes.of(asked.scale))
    with alone(settings), Progress(console) as progress:
        fill(settings, shop, progress, replace=asked.replace)
    took = time.monotonic() - started
    console.print(
        f"{progress.total:,} rows in {took:.1f} s: {SPAN} at scale {asked.scale:g}, seed {asked.seed}",
        soft_wrap=True,
    )


def _verify(settings: Settings, console: Console) -> int:
    counted = count(settings)
    show(counted, settings, console)
    troubles = [one.trouble for one in counted if one.trouble]
    for trouble in troubles:
        print(trouble, file=sys.stderr)
    return 1 if troubles else 0
