"""Guesses which columns hold personal data, by their names and by what is in them.

A guess: who knows the data decides, in the contract. It is better to hide a column too many than one too few.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from tallyhouse.source.names import plain_name

MOST = 0.6
"""Share of a column's values that must look personal before it is taken for personal."""
_NAMED = re.compile(
    r"(^|_)(e_?mails?|phones?|mobile|telephone|tel|fax|first_?names?|last_?names?|full_?name|given_?name"
    r"|surname|family_?name|middle_?name|maiden_?name|customer_name|contact_name|user_?name|login|nick_?name"
    r"|street|addresses|address(_?(line|1|2|3))?|postal_?code|post_?code|zip(_?code)?"
    r"|birth_?(date|day)|date_of_birth|dob|ssn|social_security(_number)?|passport(_no|_number)?"
    r"|tax_?(id|number)|iban|credit_?card|card_?number|pan|cvv|ip(_?address)?|latitude|longitude"
    r"|password(_hash)?|passwd|pwd|secret|token|national_id|gender|sex|signature|photo)(_|$)"
)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[a-z]{2,}", re.IGNORECASE)
_PHONE = re.compile(r"\+\d[\d\s().-]{7,18}\d|\(?\d{3}\)?[\s.-]\d{3}[\s.-]\d{4}")
_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
_CARD = re.compile(r"\d(?:[ -]?\d){12,18}")
_FEWEST = 3


def guess(name: str, values: Sequence[str]) -> str | None:
    """Why a column may hold personal data, in a few words; None where nothing says so.

    Args:
        name: What the source calls it.
        values: A sample of its values, as text.
    """
    if found := _NAMED.search(plain_name(name)):
        return f"its name says {found[2].replace('_', ' ')}"
    filled = [value.strip() for value in values if value.strip()]
    if len(filled) < _FEWEST:
        return None
    for what, looks in _CONTENT.items():
        share = sum(map(looks, filled)) / len(filled)
        if share >= MOST:
            return f"{share:.0%} of the values seen are {what}"
    return None


def _is_address(value: str) -> bool:
    try:
        return bool(ip_address(value)) and ("." in value or ":" in value)
    except ValueError:
        return False


def _is_iban(value: str) -> bool:
    compact = value.replace(" ", "")
    if not _IBAN.fullmatch(compact):
        return False
    turned = compact[4:] + compact[:4]
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1


def _is_card(value: str) -> bool:
    if not _CARD.fullmatch(value):
        return False
    digits = [int(digit) for digit in value if digit.isdigit()][::-1]
    doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


_CONTENT: dict[str, Callable[[str], bool]] = {
    "e-mail addresses": lambda value: _EMAIL.fullmatch(value) is not None,
    "phone numbers": lambda value: _PHONE.fullmatch(value) is not None,
    "IBANs": _is_iban,
    "card numbers": _is_card,
    "IP addresses": _is_address,
}
