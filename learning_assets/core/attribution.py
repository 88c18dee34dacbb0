"""Whose edge is it? Allocation (dm) and entry (pm) slices match the same trades.

Fitting one module first would let it take what belongs to the other: an edge of one pattern
looks, over all patterns, like a smaller edge of the allocation, and the other patterns then need
a correction of the opposite sign. So the blocks (groups of both modules) are searched together:
at each step the strongest slice of any block is taken, and each block sees the outcomes without
the effects of the other module's blocks (backfitting: Friedman & Stuetzle 1981). Groups of one
module do not adjust each other; with a single module this is the search of each group alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.mining import Group
from learning_assets.core.residual import (
    Cutoffs,
    Memory,
    Search,
    best_beside,
    drop_weak,
    effect_of,
    exchange,
    noise_of,
    regroup,
)
from learning_assets.core.scope import ScopeSubset

Floats = NDArray[np.float64]
Calibrate = Callable[[Search, Sequence[ScopeSubset]], Cutoffs]
"""Cut-offs for a search on what the given slices leave unexplained."""

_MAX_ROUNDS = 6
_MAX_STEPS = 200
_SWEEPS = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of every search: see `core.residual.Search`."""

    n_min: int
    depth: int
    winsor: float


@dataclass(frozen=True, slots=True)
class Block:
    """A group in the joint search.

    `y` (length T of the group, R) is the outcome minus the baseline, `taken` the slices so far,
    `cut` the cut-offs, `effect` (all trades of the events) what the taken slices explain.
    `is_cached` means that the cut-offs came from an earlier run and stay; the noise that evidence
    is measured in is always today's.
    """

    group: Group
    y: Floats
    effect: Floats
    taken: tuple[ScopeSubset, ...] = ()
    cut: Cutoffs | None = None
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class JointSearch:
    """The search over blocks: limits, and how cut-offs are made."""

    limits: Limits
    calibrate: Calibrate
    memory: Memory

    def run(self, blocks: Sequence[Block]) -> list[Block]:
        """The blocks with the slices that stay and the cut-offs of the last calibration."""
        current = list(blocks)
        for _ in range(_MAX_ROUNDS):
            before = [block.taken for block in current]
            current = [self._calibrated(current, i) for i in range(len(current))]
            current = self._improve(self._forward(current))
            if [block.taken for block in current] == before:
                break
        return current

    def search_of(self, blocks: Sequence[Block], i: int) -> Search:
        """Block i as a search on the outcomes without the other module's effects."""
        block = blocks[i]
        others = sum(
            (b.effect for b in blocks if b.group.key.module != block.group.key.module),
            np.zeros_like(block.effect),
        )
        depth = min(self.limits.depth, len(block.group.dims))
        y = block.y - others[block.group.trades]
        return Search(block.group, y, self.limits.n_min, depth, self.limits.winsor, self.memory)

    def _calibrated(self, blocks: Sequence[Block], i: int) -> Block:
        block, search = blocks[i], self.search_of(blocks, i)
        if not block.is_cached:
            cut = self.calibrate(search, block.taken)
            return replace(block, cut=cut if block.cut is None else _filled(cut, block.cut))
        return replace(block, cut=Cutoffs(_cut(block).by_cell, noise_of(search, block.taken)))

    def _refit(self, blocks: list[Block]) -> list[Block]:
        """Effects of all blocks given each other's."""
        for _ in range(_SWEEPS if len({b.group.key.module for b in blocks}) > 1 else 1):
            for i, block in enumerate(blocks):
                effect = np.zeros_like(block.effect)
                if block.taken:
                    search = self.search_of(blocks, i)
                    shock = _cut(block).shock
                    effect[block.group.trades] = effect_of(search, block.taken, shock)
                blocks[i] = replace(block, effect=effect)
        return blocks

    def _forward(self, blocks: list[Block]) -> list[Block]:
        """Take the strongest slice of any block, refit, mine again where outcomes changed."""
        best: dict[int, tuple[ScopeSubset | None, float]] = {}
        for _ in range(_MAX_STEPS):
            for i in range(len(blocks)):
                if i not in best:
                    best[i] = self._best(blocks, i)
            i = max(best, key=lambda k: best[k][1], default=-1)
            if i < 0 or best[i][0] is None:
                break
            new = best[i][0]
            assert new is not None
            blocks[i] = replace(blocks[i], taken=(*blocks[i].taken, new))
            blocks = self._refit(blocks)
            module = blocks[i].group.key.module
            best = {k: b for k, b in best.items() if k != i and _module(blocks[k]) == module}
        return blocks

    def _best(self, blocks: Sequence[Block], i: int) -> tuple[ScopeSubset | None, float]:
        block, search = blocks[i], self.search_of(blocks, i)
        new, beyond = best_beside(search, block.taken, _cut(block))
        return (None, -np.inf) if new is None or new in block.taken else (new, beyond)

    def _improve(self, blocks: list[Block]) -> list[Block]:
        """Exchange and drop within each block, the others held."""
        for i, block in enumerate(blocks):
            if block.taken:
                search, cut = self.search_of(blocks, i), _cut(block)
                taken = regroup(search, exchange(search, list(block.taken), cut), cut)
                kept = tuple(sorted(drop_weak(search, taken, cut)))
                blocks[i] = replace(block, taken=kept)
                blocks = self._refit(blocks)
        return blocks


def _module(block: Block) -> str:
    return block.group.key.module


def _filled(cut: Cutoffs, before: Cutoffs) -> Cutoffs:
    """With the cut-offs of before where the slices that were taken leave nothing else to test.

    Of two slices that are all of a group one says what the other does: once it is taken, no third
    tells what it must be beyond.
    """
    pairs = zip(cut.by_cell, before.by_cell, strict=True)
    return replace(cut, by_cell=tuple(old if np.isinf(new) else new for new, old in pairs))


def _cut(block: Block) -> Cutoffs:
    if block.cut is None:
        raise ValueError(f"{block.group.key} has not been calibrated")
    return block.cut
