"""The same seed gives the same business, in any process and in any chunks."""

import hashlib
import os
import subprocess
import sys

import pytest

from tallyhouse.settings import ROOT
from techmarket import auth, batches, catalog, orders, pancakes, payments
from techmarket.shop import Shop
from techmarket.sizes import Sizes

PROGRAM = """
import hashlib
from techmarket.shop import Shop
from techmarket.sizes import Sizes
shop, digest = Shop(20260101, Sizes.of(0.004)), hashlib.sha256()
for store in ("catalog", "orders", "auth", "payments"):
    for batch in shop.batches(store):
        for row in batch.rows():
            digest.update(f"{batch.table}{row}".encode())
for row in shop.pancakes():
    digest.update(repr(row).encode())
print(digest.hexdigest())
"""


def _digest(**environment: str) -> str:
    child = {**os.environ, "PYTHONPATH": str(ROOT / "include"), **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=child, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_same_digest_in_other_processes() -> None:
    first = _digest(PYTHONHASHSEED="1", TZ="UTC")
    # NumPy picks other machine code without these, as it does on another processor.
    other = _digest(
        PYTHONHASHSEED="2", TZ="America/New_York", NPY_DISABLE_CPU_FEATURES="AVX2 FMA3 AVX512F AVX512_SKX"
    )
    assert first == other


def _rows(shop: Shop) -> dict[str, str]:
    digests = {store: hashlib.sha256() for store in ("catalog", "orders", "auth", "payments")}
    for store, digest in digests.items():
        for row in sorted(row for batch in shop.batches(store) for row in batch.rows()):
            digest.update(row.encode())
    return {store: digest.hexdigest() for store, digest in digests.items()}


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _rows(Shop(3, Sizes.of(0.004)))
    small = batches.chunks
    for module in (auth, catalog, orders, pancakes, payments):
        monkeypatch.setattr(module, "chunks", lambda total: small(total, 37))
    assert _rows(Shop(3, Sizes.of(0.004))) == whole


def test_another_seed_is_another_business() -> None:
    assert _rows(Shop(3, Sizes.of(0.001))) != _rows(Shop(4, Sizes.of(0.001)))


@pytest.mark.parametrize("scale", [0.000001, 0.0003, 0.003])
def test_tiny_scales_work(scale: float) -> None:
    shop = Shop(5, Sizes.of(scale))
    assert all(list(shop.batches(store)) for store in ("catalog", "orders", "auth", "payments"))
    assert list(shop.pancakes())


def test_scale_one_is_about_a_million_rows() -> None:
    """Counted at a tenth, where it is quick; rows grow with the scale."""
    shop = Shop(20260101, Sizes.of(0.1))
    rows = sum(
        len(batch) for store in ("catalog", "orders", "auth", "payments") for batch in shop.batches(store)
    )
    assert 95_000 < rows + shop.sizes.pancakes < 105_000
