"""Errors, as ClickHouse words and numbers them."""

import re

import chdb
from fastapi.responses import PlainTextResponse, Response

# Clients decide by the status whether to try again, and by the code what happened.
_STATUS = {
    **dict.fromkeys((60, 81, 372), 404),  # no such table, database or session
    **dict.fromkeys((6, 26, 27, 36, 38, 41, 43, 46, 47, 62, 70, 72, 115, 117, 130, 386), 400),
    **dict.fromkeys((497, 516), 403),
    209: 408,  # the client took too long
    307: 413,  # too many bytes
}


class ClickHouseError(Exception):
    """What ClickHouse says went wrong, with its code."""

    def __init__(self, error: Exception | str) -> None:
        text = re.sub(r"^Streaming (\w+ )+failed: ", "", str(error)).strip()
        found = re.search(r"Code: (\d+)\. DB::", text)
        self.code = int(found.group(1)) if found else 1002  # UNKNOWN_EXCEPTION
        self.text = text if found else f"Code: 1002. DB::Exception: {text}. (UNKNOWN_EXCEPTION)"
        if "(version" not in self.text:
            self.text += f" (version {chdb.engine_version})"
        super().__init__(self.text)

    def response(self) -> Response:
        """The HTTP answer that ClickHouse gives for this error."""
        headers = {"X-ClickHouse-Exception-Code": str(self.code)}
        return PlainTextResponse(f"{self.text}\n", _STATUS.get(self.code, 500), headers)


def refused(why: str) -> ClickHouseError:
    """The answer to what this server never does."""
    return ClickHouseError(f"Code: 497. DB::Exception: {why}. (ACCESS_DENIED)")


def syntax_error(why: str) -> ClickHouseError:
    """The answer to what cannot be read."""
    return ClickHouseError(f"Code: 62. DB::Exception: Syntax error: {why}. (SYNTAX_ERROR)")
