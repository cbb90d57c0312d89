"""Random numbers by position, the same on every machine.

A draw is a hash of (seed, name of the draw, index), in whole numbers. That makes it independent of
chunk sizes and of the order of the work, and a reference (``customer_id`` of an order) can be
computed from an index instead of being kept in memory. Floats are only multiplied, added and
compared, element by element: those are exact everywhere, while powers and logarithms are not.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
# Where the 32 hex digits stand in the 36 characters of a UUID.
_UUID_PLACES = np.array([i for i in range(36) if i not in (8, 13, 18, 23)])


class Randomness:
    """Draws for one seed.

    Args:
        seed: any text or number; equal seeds give equal draws.
    """

    def __init__(self, seed: int | str) -> None:
        self.seed = seed
        self._keys: dict[str, np.uint64] = {}

    def words(self, name: str, index: Ints) -> Words:
        """64 random bits for each index (SplitMix64 over a keyed counter)."""
        key = self._keys.get(name)
        if key is None:
            digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()
            key = self._keys[name] = np.uint64(int.from_bytes(digest, "little"))
        mixed = index.astype(np.uint64) * _GOLDEN + key
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
        mixed = mixed ^ (mixed >> np.uint64(31))
        # A second round: counters of one key differ by a constant, and so would their products.
        mixed = (mixed ^ (mixed >> np.uint64(33))) * _MIX_1
        return mixed ^ (mixed >> np.uint64(29))

    def uniform(self, name: str, index: Ints) -> Floats:
        """A number in [0, 1) for each index."""
        return (self.words(name, index) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, name: str, index: Ints, limit: int | Ints) -> Ints:
        """A whole number in [0, limit) for each index."""
        bound = np.asarray(limit).astype(np.uint64)
        return (self.words(name, index) % bound).astype(np.int64)

    def chance(self, name: str, index: Ints, probability: float | Floats) -> Bools:
        """True with the given probability."""
        return np.asarray(self.uniform(name, index) < probability)

    def weighted(self, name: str, index: Ints, weights: Sequence[float]) -> Ints:
        """A position in ``weights``, each as likely as its weight."""
        edges = np.cumsum(np.asarray(weights, dtype=np.float64))
        drawn = np.searchsorted(edges, self.uniform(name, index) * edges[-1], side="right")
        return np.asarray(np.minimum(drawn, len(edges) - 1), dtype=np.int64)

    def uuids(self, name: str, index: Ints) -> list[str]:
        """A UUID (version 4 in form) for each index."""
        high = self.words(f"{name}/uuid-high", index)
        low = self.words(f"{name}/uuid-low", index)
        high = (high & np.uint64(0xFFFFFFFFFFFF0FFF)) | np.uint64(0x4000)
        low = (low & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
        text = np.full((len(index), 36), ord("-"), dtype=np.uint8)
        octets = np.stack([high, low], axis=1).astype(">u8").view(np.uint8).reshape(-1, 16)
        digits = np.empty((len(index), 32), dtype=np.uint8)
        digits[:, 0::2] = octets >> 4
        digits[:, 1::2] = octets & 15
        text[:, _UUID_PLACES] = _HEX[digits]
        joined = text.tobytes().decode("ascii")
        return [joined[at : at + 36] for at in range(0, len(joined), 36)]

    def one(self, name: str, number: int = 0) -> float:
        """A single number in [0, 1)."""
        return float(self.uniform(name, np.array([number], dtype=np.int64))[0])

    def one_below(self, name: str, limit: int, number: int = 0) -> int:
        """A single whole number in [0, limit)."""
        return int(self.below(name, np.array([number], dtype=np.int64), limit)[0])

    def one_uuid(self, name: str, number: int = 0) -> str:
        """A single UUID."""
        return self.uuids(name, np.array([number], dtype=np.int64))[0]
