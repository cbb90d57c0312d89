"""The ledger: equations that say of each table of each run that no row is unexplained."""

from tallyhouse.ledger.line import CURRENT, ROWS, VERSIONS, Hop, Line, check_closed, mart_in, shown_in

__all__ = ["CURRENT", "ROWS", "VERSIONS", "Hop", "Line", "check_closed", "mart_in", "shown_in"]
