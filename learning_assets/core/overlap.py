"""Overlaps (Jaccard indices) of thousands of sets of trades, on packed bits.

Only pairs that reach a cut are looked for over all sets: most others are given up after a few
words, when what is left of the smaller set can no longer reach it. What overlaps mean is decided
in `core.factors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numba as nb
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_BLOCK = 16
_WORD_BITS = 64
_THREADS = 2
_ROWS = 64


def pack(sets: Sequence[Ints], n: int) -> Words:
    """Sets of indices under `n` as bits: sets × words, padded to whole blocks."""
    bits = _BLOCK * _WORD_BITS
    words = max(-(-n // bits), 1) * _BLOCK
    out = np.zeros((len(sets), words), dtype=np.uint64)
    mask = np.zeros(words * _WORD_BITS, dtype=bool)
    for i, members in enumerate(sets):
        mask[members] = True
        out[i] = np.packbits(mask, bitorder="little").view(np.uint64)
        mask[members] = False
    return out


@nb.njit(cache=True, nogil=True)
def _common_at_least(a: Words, b: Words, left_a: Ints, left_b: Ints, needed: float) -> int:
    """Size of the intersection, −1 where it is under `needed`."""
    common = 0
    for block in range(left_a.shape[0] - 1):
        for w in range(block * _BLOCK, (block + 1) * _BLOCK):
            x = a[w] & b[w]
            x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
            x = (x & np.uint64(0x3333333333333333)) + (
                (x >> np.uint64(2)) & np.uint64(0x3333333333333333)
            )
            x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
            common += int((x * np.uint64(0x0101010101010101)) >> np.uint64(56))
        if common + min(left_a[block + 1], left_b[block + 1]) < needed:
            return -1
    return common


@nb.njit(cache=True, nogil=True)
def _rows_at_least(words: Words, left: Ints, first: int, last: int, cut: float) -> Floats:
    """Overlaps of at least `cut` of sets first … last − 1 with later ones; sets stand by size."""
    n = words.shape[0]
    out = np.zeros((last - first, n))
    for i in range(first, last):
        for j in range(i + 1, n):
            size = left[i, 0] + left[j, 0]
            if left[i, 0] < cut * left[j, 0]:
                break
            needed = cut * size / (1 + cut) - 1e-9
            common = _common_at_least(words[i], words[j], left[i], left[j], needed)
            if common > 0:
                out[i - first, j] = common / (size - common)
    return out


def pairs_at_least(sets: Sequence[Ints], n: int, cut: float) -> tuple[Ints, Ints, Floats]:
    """The pairs of sets of indices under `n` that overlap by at least `cut` > 0: i, j, overlap."""
    order = np.argsort([len(members) for members in sets], kind="stable")
    words = pack([sets[i] for i in order], n)
    left = _left(words)

    def task(first: int) -> tuple[Ints, Ints, Floats]:
        found = _rows_at_least(words, left, first, min(first + _ROWS, len(sets)), cut)
        i, j = np.nonzero(found)
        return order[i + first], order[j], found[i, j]

    with ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(task, range(0, len(sets), _ROWS)))
    empty = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    i, j, overlap = (np.concatenate(column) for column in zip(*(parts or empty), strict=True))
    return i, j, overlap


def _left(words: Words) -> Ints:
    """Bits from each block on: sets × (blocks + 1)."""
    by_block = np.bitwise_count(words).reshape(len(words), -1, _BLOCK).sum(axis=2, dtype=np.int64)
    left = np.zeros((len(words), by_block.shape[1] + 1), dtype=np.int64)
    left[:, :-1] = by_block[:, ::-1].cumsum(axis=1)[:, ::-1]
    return left


@nb.njit(cache=True, nogil=True)
def _all_common(words: Words, left: Ints) -> Ints:
    n = words.shape[0]
    out = np.zeros((n, n), dtype=np.int64)
    for i in range(n):
        for j in range(i, n):
            out[i, j] = _common_at_least(words[i], words[j], left[i], left[j], 0.0)
            out[j, i] = out[i, j]
    return out


def common_counts(sets: Sequence[Ints]) -> Ints:
    """Sizes of all intersections of sets of indices; their own sizes on the diagonal."""
    union = np.unique(np.concatenate([*sets, np.empty(0, np.int64)]))
    words = pack([np.searchsorted(union, members) for members in sets], len(union))
    common: Ints = _all_common(words, _left(words))
    return common


def jaccard(common: Ints) -> Floats:
    """Overlaps from the sizes of intersections; 0 between empty sets."""
    size = np.diag(common)
    union = size[:, None] + size[None, :] - common
    overlap: Floats = np.divide(common, union, out=np.zeros(common.shape), where=union > 0)
    return overlap
