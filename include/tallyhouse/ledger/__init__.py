"""The ledger: equations that say of each table of each run that no row is unexplained."""

from tallyhouse.ledger.line import ROWS, Hop, Line, check_closed, mart_in, shown_in

__all__ = ["ROWS", "Hop", "Line", "check_closed", "mart_in", "shown_in"]
