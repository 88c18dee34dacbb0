"""A simulated market with known truth: closed trades whose expected outcome is planted.

Model: rr = base + Σ effects of the entry's scope + Σ effects of the allocation's scope + noise,
clipped to ±33 R; an effect is e0·exp(−λ·t), t from the start of the market to the trade's closing.
Noise has mean 0, so with skewed noise an effect shifts the whole distribution. Learning from these
trades belongs to `core`, reading them back from a database to `sources.strands`.
"""

from __future__ import annotations

import json
import math
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from psycopg import Connection, sql
from scipy.signal import lfilter
from scipy.special import ndtr

from learning_assets.core.records import RR_LIMIT, Action, ClosedTrade, GroupKey, Reason
from learning_assets.core.scope import ScopeSubset, matches, subset
from learning_assets.errors import UserError

ALIVE_R = 0.05
"""An effect smaller than this is worn out (R)."""

DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "curator": (
        *("ada", "blaise", "curie", "dirac", "euler", "fermi"),
        *("gauss", "hopper", "ising", "joule", "kepler", "lovelace"),
    ),
    "chain": ("solana", "ethereum", "base", "bsc", "arbitrum"),
    "mcap_bucket": ("nano", "micro", "small", "mid", "large", "mega"),
    "vol_bucket": ("<100k", "100k-500k", "500k-2m", ">2m"),
    "age_bucket": ("<1d", "1-3d", "3-7d", "7-14d", "14-30d", ">30d"),
    "intent": ("buy_signal", "research_positive", "mixed", "warning"),
    "mcap_vol_ratio_bucket": ("<0.5", "0.5-1", "1-2", "2-5", ">5"),
    "market_family": ("lowcaps", "majors", "perps"),
    "timeframe": ("15m", "1h", "4h", "1d"),
    "A_mode": ("patient", "normal", "aggressive"),
    "E_mode": ("patient", "normal", "aggressive"),
    "bucket_leader": ("micro", "small", "mid", "large"),
    "bucket_rank_position": ("1", "2", "3", "4", "5", "6"),
}
"""The categorical scope dimensions with their values; further ones are made up."""

REGIME_DIMENSIONS = tuple(
    f"{driver}_{horizon}"
    for horizon in ("macro", "meso", "micro")
    for driver in ("btc", "alt", "bucket", "btcd", "usdtd")
)
"""The regime states, slowest horizon first."""

PM_CATEGORIES = ("entry", "add", "trim", "exit")
ALLOCATION = "allocation"
DM_PATTERN = "dm.lowcap.S1.allocate"

_PATTERNS = (
    *("uptrend.S1.buy_flag", "uptrend.S2.retest", "reversal.S0.spring"),
    *("range.S2.breakout", "momentum.S3.squeeze", "uptrend.S3.pullback"),
)
_REGIME_STATES = {"macro": 4, "meso": 5, "micro": 5}
_EXTRA_VALUES = tuple("abcdefgh")
_DAY_S = 86_400
_HOUR_S = 3_600
_MAX_HOLD_S = 10 * _DAY_S
_SIMILAR = 0.6  # above this Jaccard index two planted scopes could not be told apart


@dataclass(frozen=True, slots=True)
class MarketSettings:
    """What a simulated market is like. Edges in R, shares 0–1, `start` aware.

    `n_effects` are planted on entries, `n_dm_effects` on allocations; `share_decaying`,
    `share_regime` and `share_overlapping` of them wear out, name a regime state, or refine
    another one's scope. `flip_halfway` turns the sign of all in the middle of the span.
    `dependence` (0–1) correlates the categorical dimensions. `noise_sd` is the whole noise,
    the common daily shock included, of which the shock has `day_share` of the variance.
    `late_share`, `duplicate_share`, `broken_share` and `embedded_share` concern the strands
    that are written, not the trades.
    """

    seed: int = 0
    n_trades: int = 6000
    start: datetime = datetime(2026, 1, 5, tzinfo=UTC)
    span_days: int = 180
    n_dims: int = 13
    n_regime_dims: int = 15
    dependence: float = 0.0
    n_patterns: int = 3
    categories: tuple[str, ...] = PM_CATEGORIES
    allocation_share: float = 0.9
    n_effects: int = 8
    n_dm_effects: int = 2
    effect_range_r: tuple[float, float] = (0.3, 0.9)
    min_support: int = 150
    max_support_share: float = 0.4
    share_decaying: float = 0.25
    half_life_range_hours: tuple[float, float] = (500.0, 2500.0)
    share_regime: float = 0.25
    share_overlapping: float = 0.25
    flip_halfway: bool = False
    regime_days: tuple[float, float, float] = (28.0, 7.0, 1.5)
    base_rr: float = 0.0
    noise: Literal["light", "bursty"] = "bursty"
    noise_sd: float = 1.2
    day_share: float = 0.05
    day_autocorrelation: float = 0.9
    loser_share: float = 0.7
    win_sigma: float = 0.6
    median_hold_hours: float = 10.0
    add_share: float = 0.25
    late_share: float = 0.03
    duplicate_share: float = 0.02
    broken_share: float = 0.01
    embedded_share: float = 0.1

    @property
    def end(self) -> datetime:
        """The end of the market: every trade closed before it."""
        return self.start + timedelta(days=self.span_days)


@dataclass(frozen=True, slots=True)
class PlantedEffect:
    """One effect of the truth: what a trade earns more when its action fired in this scope.

    `e0` is the effect at the start of the market, `effect_r` what is left of it at the truth's
    as_of (R); `alive` says whether that is still at least 0.05 R. `n_trades` counts the trades
    that closed before as_of and have the effect. `half_life_hours` is None for a lasting one.
    """

    module: str
    pattern_key: str
    action_category: str
    scope_subset: ScopeSubset
    effect_r: float
    e0: float
    half_life_hours: float | None
    n_trades: int
    alive: bool
    begins_at: datetime
    flips_at: datetime | None = None

    @property
    def group(self) -> GroupKey:
        """The group of the slice that carries it."""
        return GroupKey(self.module, self.pattern_key, self.action_category)

    def at(self, moment: datetime) -> float:
        """The effect at a moment, in R."""
        hours = (moment - self.begins_at).total_seconds() / 3600
        flipped = self.flips_at is not None and moment >= self.flips_at
        return (-self.e0 if flipped else self.e0) * math.exp(-self._rate * hours)

    def touches(self, trade: ClosedTrade) -> bool:
        """Whether an action of the trade fired in this slice."""
        group = self.group
        return any(
            (action.module, action.pattern_key, action.action_category) == group
            and matches(self.scope_subset, action.scope)
            for action in trade.actions
        )

    def as_of(self, moment: datetime, n_trades: int) -> PlantedEffect:
        """The same effect, with what is left of it at another moment."""
        effect_r = self.at(moment)
        return replace(self, effect_r=effect_r, n_trades=n_trades, alive=abs(effect_r) >= ALIVE_R)

    @property
    def _rate(self) -> float:
        return 0.0 if self.half_life_hours is None else math.log(2) / self.half_life_hours


@dataclass(frozen=True, slots=True)
class Truth:
    """What was planted: the effects, and every trade's expected rr (noise left out), in R."""

    as_of: datetime
    base_rr: float
    effects: tuple[PlantedEffect, ...]
    expected_rr: Mapping[str, float]

    def effect_at(self, trade: ClosedTrade, moment: datetime | None = None) -> float:
        """Sum of the effects on a trade, in R: at `moment`, by default when it closed."""
        at = trade.closed_at if moment is None else moment
        return sum(effect.at(at) for effect in self.effects if effect.touches(trade))


@dataclass(frozen=True, slots=True)
class Market:
    """A simulated market: its trades in closing order, each once, and the truth beside them."""

    settings: MarketSettings
    trades: list[ClosedTrade]
    truth: Truth

    def truth_as_of(self, as_of: datetime) -> Truth:
        """The truth at another moment: effects left then, on the trades closed before it."""
        known = [trade for trade in self.trades if trade.closed_at < as_of]
        effects = tuple(
            effect.as_of(as_of, sum(map(effect.touches, known))) for effect in self.truth.effects
        )
        return replace(self.truth, as_of=as_of, effects=effects)

    def true_edge_r(
        self, group: GroupKey, scope_subset: ScopeSubset, as_of: datetime | None = None
    ) -> float | None:
        """The true edge of any slice: mean effect left at as_of minus that of its complement, R.

        The complement is the rest of the slice's group, or for the empty subset the trades of
        the same module and category outside the group. None where either is empty.
        """
        moment = self.truth.as_of if as_of is None else as_of
        inside, outside = _slice_and_complement(self.trades, group, scope_subset, moment)
        if not inside or not outside:
            return None
        left = {id(t): self.truth.effect_at(t, moment) for t in (*inside, *outside)}
        means = [math.fsum(left[id(t)] for t in part) / len(part) for part in (inside, outside)]
        return means[0] - means[1]

    def frame(self) -> pd.DataFrame:
        """One row per action, in the order closed_at, trade_id, event_id; scopes are shared.

        Columns: event_id, trade_id, module, pattern_key, action_category, scope (mapping), rr
        (R), closed_at, opened_at (UTC), pnl_usd, payback_hours, hold_hours (NaN: unknown).
        """
        return frame_of(self.trades)


def frame_of(trades: Iterable[ClosedTrade]) -> pd.DataFrame:
    """Closed trades as a frame with one row per action; see `Market.frame`."""
    rows = [
        (action, trade)
        for trade in sorted(trades, key=lambda t: (t.closed_at, t.trade_id))
        for action in sorted(trade.actions, key=lambda a: a.action_id)
    ]
    columns: dict[str, Any] = {
        "event_id": [f"{trade.trade_id}:{action.action_id}" for action, trade in rows],
        "trade_id": [trade.trade_id for _, trade in rows],
        "module": [action.module for action, _ in rows],
        "pattern_key": [action.pattern_key for action, _ in rows],
        "action_category": [action.action_category for action, _ in rows],
        "scope": pd.Series([action.scope for action, _ in rows], dtype=object),
        "rr": np.array([trade.rr for _, trade in rows], dtype=np.float64),
        "closed_at": pd.to_datetime(
            pd.Series([trade.closed_at for _, trade in rows], dtype=object), utc=True
        ),
        "opened_at": pd.to_datetime(
            pd.Series([trade.opened_at for _, trade in rows], dtype=object), utc=True
        ),
    }
    for name in ("pnl_usd", "payback_hours", "hold_hours"):
        columns[name] = np.array([getattr(trade, name) for _, trade in rows], dtype=np.float64)
    return pd.DataFrame(columns)


def _slice_and_complement(
    trades: Sequence[ClosedTrade], group: GroupKey, scope_subset: ScopeSubset, as_of: datetime
) -> tuple[list[ClosedTrade], list[ClosedTrade]]:
    inside, outside = [], []
    for trade in trades:
        if trade.closed_at >= as_of:
            continue
        actions = [a for a in trade.actions if a.action_category == group.action_category]
        own = [a for a in actions if a.pattern_key == group.pattern_key]
        if any(matches(scope_subset, action.scope) for action in own):
            inside.append(trade)
        elif own or (actions and not scope_subset and actions[0].module == group.module):
            outside.append(trade)
    return inside, outside


# ---- the simulation: columns first, records at the end --------------------------------------


@dataclass(frozen=True, slots=True)
class _World:
    """Scopes of a market: names and values of the dimensions, and how regimes go on.

    The first `n_categorical` dimensions are drawn per trade (`codes`, trades × dimensions), the
    others are read off the regimes' change points (seconds since the start) and states.
    """

    dims: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    codes: NDArray[np.int16]
    regimes: tuple[tuple[NDArray[np.float64], NDArray[np.int16]], ...]

    @property
    def n_categorical(self) -> int:
        return int(self.codes.shape[1])

    def scopes(self, trade: NDArray[np.int64], at_s: NDArray[np.int64]) -> NDArray[np.int16]:
        """Codes (actions × dimensions) of actions of these trades at these times."""
        states = [
            states[np.searchsorted(changes, at_s, side="right")] for changes, states in self.regimes
        ]
        return np.column_stack([self.codes[trade], *states])


@dataclass(frozen=True, slots=True)
class _Draft:
    """Trades as columns, in the order in which they were drawn; times in seconds from the start."""

    opened_s: NDArray[np.int64]
    closed_s: NDArray[np.int64]
    pattern: NDArray[np.int64]
    allocated: NDArray[np.bool_]
    allocated_s: NDArray[np.int64]
    expected: NDArray[np.float64]
    rr: NDArray[np.float64]


def simulate(settings: MarketSettings) -> Market:
    """The market of these settings; the same settings give the same market.

    Each part draws from a stream of its own, so that another noise leaves the scopes and the
    planted effects as they are.

    Raises:
        UserError: when so many effects of so much support do not fit into so few trades.
    """
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(settings.seed).spawn(7)]
    n = settings.n_trades
    opened_s, closed_s = _times(streams[0], settings)
    world = _world(streams[1], settings)
    pattern = streams[2].choice(settings.n_patterns, n, p=_pattern_shares(settings.n_patterns))
    allocated = streams[2].random(n) < settings.allocation_share
    allocated_s = opened_s - streams[2].integers(60, _HOUR_S, n)
    every = np.arange(n)
    planter = _Planter(streams[3], settings, world)
    planter.plant_pm(world.scopes(every, opened_s), pattern)
    planter.plant_dm(world.scopes(every, allocated_s), allocated)
    expected = settings.base_rr + planter.effect_r(closed_s)
    rr = np.round(expected + _noise(streams[4], settings, closed_s), 6)
    draft = _Draft(
        *(opened_s, closed_s, pattern, allocated, allocated_s, expected),
        np.clip(rr, -RR_LIMIT, RR_LIMIT),
    )
    trades, order = _records(streams[5], streams[6], settings, world, draft)
    expected_rr = {
        trade.trade_id: float(expected[i]) for trade, i in zip(trades, order, strict=True)
    }
    effects = tuple(planter.planted(settings))
    return Market(settings, trades, Truth(settings.end, settings.base_rr, effects, expected_rr))


def _pattern_shares(n: int) -> NDArray[np.float64]:
    weights = 0.6 ** np.arange(n, dtype=np.float64)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _times(
    rng: np.random.Generator, settings: MarketSettings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Opening and closing times: busy and quiet days, holds of hours to days."""
    n = settings.n_trades
    busy = rng.lognormal(0.0, 0.3, settings.span_days)
    day = rng.choice(settings.span_days, n, p=busy / busy.sum())
    closed = day * _DAY_S + rng.integers(0, _DAY_S, n)
    hold = rng.lognormal(math.log(settings.median_hold_hours * _HOUR_S), 1.0, n)
    return closed - np.clip(hold, 600, _MAX_HOLD_S).astype(np.int64), closed


def _world(rng: np.random.Generator, settings: MarketSettings) -> _World:
    known = list(DIMENSIONS.items())[: settings.n_dims]
    made_up = [(f"dim_{k + 1}", _EXTRA_VALUES) for k in range(len(known), settings.n_dims)]
    named = known + made_up
    regime_dims = REGIME_DIMENSIONS[: settings.n_regime_dims]
    common = rng.standard_normal(settings.n_trades)
    codes = [_category_codes(rng, len(values), common, settings.dependence) for _, values in named]
    states = [tuple(f"S{k}" for k in range(_n_states(dim))) for dim in regime_dims]
    return _World(
        (*(dim for dim, _ in named), *regime_dims),
        (*(values for _, values in named), *states),
        np.column_stack(codes),
        tuple(_regime(rng, dim, settings) for dim in regime_dims),
    )


def _category_codes(
    rng: np.random.Generator, n_values: int, common: NDArray[np.float64], dependence: float
) -> NDArray[np.int16]:
    """Skewed values (Zipf-like, in a random order), tied to the common factor by `dependence`."""
    shares = np.arange(1, n_values + 1) ** -rng.uniform(0.6, 1.3)
    edges = np.cumsum(shares / shares.sum())[:-1]
    own = rng.standard_normal(len(common))
    mixed = math.sqrt(dependence) * common + math.sqrt(1 - dependence) * own
    ranks = np.searchsorted(edges, ndtr(mixed), side="right")
    return rng.permutation(n_values)[ranks].astype(np.int16)


def _n_states(dim: str) -> int:
    return _REGIME_STATES[dim.rpartition("_")[2]]


def _regime(
    rng: np.random.Generator, dim: str, settings: MarketSettings
) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
    """Change points (seconds) and states of one regime: exponential stays, then another state."""
    mean_days = dict(zip(_REGIME_STATES, settings.regime_days, strict=True))
    stay_s = mean_days[dim.rpartition("_")[2]] * _DAY_S
    n = 20 + int(3 * settings.span_days * _DAY_S / stay_s)
    changes = np.cumsum(rng.exponential(stay_s, n)) - _MAX_HOLD_S
    steps = rng.integers(1, _n_states(dim), n)
    first = rng.integers(_n_states(dim))
    states = np.concatenate([[first], first + np.cumsum(steps)]) % _n_states(dim)
    return changes, states.astype(np.int16)


# ---- the planted effects --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seedling:
    """An effect while it is planted; `mask` says which trades have it."""

    module: str
    pattern_key: str
    category: str
    pairs: tuple[tuple[int, int], ...]
    mask: NDArray[np.bool_]
    e0: float
    half_life_hours: float | None


class _Planter:
    """Chooses scopes with enough support and plants effects on them."""

    def __init__(self, rng: np.random.Generator, settings: MarketSettings, world: _World) -> None:
        self._rng = rng
        self._settings = settings
        self._world = world
        self._seedlings: list[_Seedling] = []

    def plant_pm(self, codes: NDArray[np.int16], pattern: NDArray[np.int64]) -> None:
        """Plants the effects on entries; `codes` are the entries' scopes (trades × dimensions)."""
        n = self._settings.n_effects
        kinds = self._kinds(n)
        shares = _pattern_shares(self._settings.n_patterns)
        for e0, half_life, kind in zip(self._sizes(n), self._half_lives(n), kinds, strict=True):
            k = int(self._rng.choice(self._settings.n_patterns, p=shares))
            self._plant("pm", _pattern_key(k), "entry", codes, pattern == k, (e0, half_life, kind))

    def plant_dm(self, codes: NDArray[np.int16], allocated: NDArray[np.bool_]) -> None:
        """Plants the effects on allocations."""
        for e0 in self._sizes(self._settings.n_dm_effects):
            self._plant("dm", DM_PATTERN, ALLOCATION, codes, allocated, (e0, None, "plain"))

    def effect_r(self, closed_s: NDArray[np.int64]) -> NDArray[np.float64]:
        """Sum of the effects on each trade at its closing, in R."""
        total = np.zeros(len(closed_s))
        middle_s = self._settings.span_days * _DAY_S / 2
        sign = np.where(self._settings.flip_halfway & (closed_s >= middle_s), -1.0, 1.0)
        for seedling in self._seedlings:
            rate = math.log(2) / seedling.half_life_hours if seedling.half_life_hours else 0.0
            total += sign * seedling.mask * seedling.e0 * np.exp(-rate * closed_s / _HOUR_S)
        return total

    def planted(self, settings: MarketSettings) -> Iterable[PlantedEffect]:
        """The effects as records, at the end of the market."""
        middle = settings.start + timedelta(days=settings.span_days / 2)
        for s in self._seedlings:
            dims, values = self._world.dims, self._world.values
            effect = PlantedEffect(
                module=s.module,
                pattern_key=s.pattern_key,
                action_category=s.category,
                scope_subset=subset((dims[d], values[d][code]) for d, code in s.pairs),
                effect_r=s.e0,
                e0=s.e0,
                half_life_hours=s.half_life_hours,
                n_trades=0,
                alive=True,
                begins_at=settings.start,
                flips_at=middle if settings.flip_halfway else None,
            )
            yield effect.as_of(settings.end, int(s.mask.sum()))

    def _kinds(self, n: int) -> list[str]:
        """`regime`, `overlap` or `plain`, the overlapping ones last: they refine earlier ones."""
        n_regime = round(n * self._settings.share_regime) if self._world.regimes else 0
        n_overlap = min(round(n * self._settings.share_overlapping), n - n_regime)
        return (
            ["plain"] * (n - n_regime - n_overlap) + ["regime"] * n_regime + ["overlap"] * n_overlap
        )

    def _sizes(self, n: int) -> list[float]:
        """Effects at the start, half of them negative."""
        signs = self._rng.permutation(np.resize([1.0, -1.0], n))
        sizes = signs * self._rng.uniform(*self._settings.effect_range_r, n)
        return [round(float(size), 3) for size in sizes]

    def _half_lives(self, n: int) -> list[float | None]:
        decaying = self._rng.permutation(n) < round(n * self._settings.share_decaying)
        shortest, longest = map(math.log, self._settings.half_life_range_hours)
        hours = np.exp(self._rng.uniform(shortest, longest, n))
        return [round(float(h), 1) if d else None for h, d in zip(hours, decaying, strict=True)]

    def _plant(
        self,
        module: str,
        pattern_key: str,
        category: str,
        codes: NDArray[np.int16],
        members: NDArray[np.bool_],
        effect: tuple[float, float | None, str],
    ) -> None:
        e0, half_life_hours, kind = effect
        parent = self._parent(module) if kind == "overlap" else None
        found = None
        if parent is not None:
            found = self._fitting(codes, parent.mask, parent, kind)
        if found is not None and parent is not None:
            pattern_key = parent.pattern_key
        else:
            found = self._fitting(codes, members, None, kind)
        if found is None:
            raise UserError(
                f"a simulated market of {self._settings.n_trades} trades has no room for so many"
                f" effects with {self._settings.min_support} trades each: raise n_trades, or"
                " lower n_effects or min_support"
            )
        self._seedlings.append(
            _Seedling(module, pattern_key, category, *found, e0, half_life_hours)
        )

    def _parent(self, module: str) -> _Seedling | None:
        """An earlier effect whose scope can be refined: of few dimensions and much support."""
        parents = [
            s
            for s in self._seedlings
            if s.module == module
            and len(s.pairs) < 3
            and s.mask.sum() >= 2 * self._settings.min_support
        ]
        return parents[int(self._rng.integers(len(parents)))] if parents else None

    def _fitting(
        self,
        codes: NDArray[np.int16],
        members: NDArray[np.bool_],
        parent: _Seedling | None,
        kind: str,
    ) -> tuple[tuple[tuple[int, int], ...], NDArray[np.bool_]] | None:
        """The first random scope that has the support and is no near-duplicate."""
        rows = np.flatnonzero(members)
        for _ in range(1000 if len(rows) else 0):
            row = codes[self._rng.choice(rows)]
            pairs = tuple((d, int(row[d])) for d in self._random_dims(parent, kind))
            mask = members & np.all([codes[:, d] == code for d, code in pairs], axis=0)
            if self._fits(mask, members, parent):
                return (*(parent.pairs if parent else ()), *pairs), mask
        return None

    def _random_dims(self, parent: _Seedling | None, kind: str) -> list[int]:
        taken = {d for d, _ in parent.pairs} if parent is not None else set()
        free = [d for d in range(self._world.n_categorical) if d not in taken]
        size = int(self._rng.choice([1, 2, 3], p=[0.25, 0.5, 0.25]))
        dims = []
        if kind == "regime":
            dims.append(int(self._rng.integers(self._world.n_categorical, len(self._world.dims))))
        n_more = min(size, 3 - len(taken)) - len(dims)
        return [*dims, *map(int, self._rng.choice(free, min(n_more, len(free)), replace=False))]

    def _fits(
        self, mask: NDArray[np.bool_], members: NDArray[np.bool_], parent: _Seedling | None
    ) -> bool:
        n = int(mask.sum())
        # A refinement must leave enough of its parent to tell the two apart.
        most = (0.7 if parent else self._settings.max_support_share) * int(members.sum())
        if not self._settings.min_support <= n <= most:
            return False
        return all(
            (mask & s.mask).sum() <= _SIMILAR * (mask | s.mask).sum()
            for s in self._seedlings
            if s is not parent
        )


def _pattern_key(k: int) -> str:
    name = _PATTERNS[k] if k < len(_PATTERNS) else f"pattern_{k + 1}.S1.signal"
    return f"pm.{name}"


# ---- noise ----------------------------------------------------------------------------------


def _noise(
    rng: np.random.Generator, settings: MarketSettings, closed_s: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Noise of mean 0 and sd `noise_sd`: `light` is normal and independent, `bursty` is neither."""
    if settings.noise == "light":
        return settings.noise_sd * rng.standard_normal(len(closed_s))
    own = math.sqrt(1 - settings.day_share) * _skewed(rng, settings, len(closed_s))
    shock = math.sqrt(settings.day_share) * _day_shocks(rng, settings)
    return settings.noise_sd * (own + shock[closed_s // _DAY_S])


def _day_shocks(rng: np.random.Generator, settings: MarketSettings) -> NDArray[np.float64]:
    """A stationary autoregression of variance 1, one value per day."""
    rho = settings.day_autocorrelation
    steps = rng.standard_normal(settings.span_days) * math.sqrt(1 - rho * rho)
    steps[0] /= math.sqrt(1 - rho * rho)
    shocks: NDArray[np.float64] = lfilter([1.0], [1.0, -rho], steps)
    return shocks


def _skewed(rng: np.random.Generator, settings: MarketSettings, n: int) -> NDArray[np.float64]:
    """Losers that cluster at the full stop, some cut earlier, and lognormal wins.

    Standardised by the moments of the distribution, not of the sample: rr of a trade does not
    depend on how many others there are. With the default shares the stop is at about −1 R.
    """
    cut, slip, p = 0.3, 0.05, settings.loser_share
    capped = math.exp(-1 / cut)  # the cut is capped at 1: X = min(Exp(cut), 1)
    cut_mean = cut * (1 - capped)
    cut_square = 2 * cut * (cut - (cut + 1) * capped) + capped
    loss_mean, loss_square = cut_mean - 1, 1 - 2 * cut_mean + cut_square + slip**2
    win_mean = -p * loss_mean / (1 - p)
    sd = math.sqrt(p * loss_square + (1 - p) * win_mean**2 * math.exp(settings.win_sigma**2))
    losses = np.minimum(rng.exponential(cut, n), 1.0) - 1 + slip * rng.standard_normal(n)
    wins = win_mean * rng.lognormal(-(settings.win_sigma**2) / 2, settings.win_sigma, n)
    return np.where(rng.random(n) < p, losses, wins) / sd


# ---- records --------------------------------------------------------------------------------


def _records(
    rng: np.random.Generator,
    id_rng: np.random.Generator,
    settings: MarketSettings,
    world: _World,
    draft: _Draft,
) -> tuple[list[ClosedTrade], NDArray[np.int64]]:
    """The trades in closing order (then by id), and the position of each in the draft."""
    ids = [str(uuid.UUID(bytes=id_rng.bytes(16), version=4)) for _ in range(settings.n_trades)]
    order = np.lexsort((np.array(ids), draft.closed_s))
    actions = _actions(rng, settings, world, draft, ids)
    details = _details(rng, draft)
    opened, closed = (
        _moments(settings.start, draft.opened_s),
        _moments(settings.start, draft.closed_s),
    )
    rr = draft.rr.tolist()
    trades = [
        ClosedTrade(ids[i], rr[i], closed[i], tuple(actions[i]), opened[i], *details[i])
        for i in order.tolist()
    ]
    return trades, order


def _moments(start: datetime, seconds: NDArray[np.int64]) -> list[datetime]:
    return [start + timedelta(seconds=s) for s in seconds.tolist()]


def _details(rng: np.random.Generator, draft: _Draft) -> list[tuple[float, float | None]]:
    """Profit (USD) and payback (hours, winners only), exact when written as days."""
    pnl = np.round(draft.rr * rng.lognormal(4.0, 0.6, len(draft.rr)), 2).tolist()
    hold_days = (draft.closed_s - draft.opened_s) / _DAY_S
    days = np.round(hold_days * rng.uniform(0.1, 1.0, len(draft.rr)), 4).tolist()
    won = (draft.rr > 0).tolist()
    return [(p, d * 24.0 if w else None) for p, d, w in zip(pnl, days, won, strict=True)]


def _actions(
    rng: np.random.Generator,
    settings: MarketSettings,
    world: _World,
    draft: _Draft,
    ids: Sequence[str],
) -> list[list[Action]]:
    """Each trade's actions in the order of their times, with the scope of that time."""
    trade, at_s, category = _action_columns(rng, settings, draft)
    codes = world.scopes(trade, at_s)
    text = [np.array(values, dtype=object)[codes[:, d]] for d, values in enumerate(world.values)]
    alphabetical = sorted(range(len(world.dims)), key=world.dims.__getitem__)
    dims = [world.dims[d] for d in alphabetical]
    scopes = zip(*(text[d].tolist() for d in alphabetical), strict=True)
    keys = [_pattern_key(k) for k in range(settings.n_patterns)]
    patterns = draft.pattern.tolist()
    actions: list[list[Action]] = [[] for _ in ids]
    for i, c, values in zip(trade.tolist(), category.tolist(), scopes, strict=True):
        own = actions[i]
        module, key = ("dm", DM_PATTERN) if c == 0 else ("pm", keys[patterns[i]])
        scope = dict(zip(dims, values, strict=True))
        name = (ALLOCATION, *PM_CATEGORIES)[c]
        own.append(Action(f"{ids[i]}/{len(own)}-{name}", module, key, name, scope))
    return actions


def _action_columns(
    rng: np.random.Generator, settings: MarketSettings, draft: _Draft
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Trade, time (seconds) and category (0 allocation, then as PM_CATEGORIES) of every action.

    Trims mostly happen to winners: they are associated with the outcome without causing it.
    """
    n = len(draft.rr)
    hold = draft.closed_s - draft.opened_s
    add_s = draft.opened_s + (hold * rng.uniform(0.05, 0.6, n)).astype(np.int64)
    trim_s = draft.opened_s + (hold * rng.uniform(0.4, 0.95, n)).astype(np.int64)
    trimmed = rng.random(n) < np.where(draft.rr > 0.5, 0.6, 0.04)
    whole = np.ones(n, dtype=bool)
    shown = [
        (draft.allocated, draft.allocated_s),
        (whole, draft.opened_s),
        (rng.random(n) < settings.add_share, add_s),
        (trimmed, trim_s),
        (whole, draft.closed_s),
    ]
    wanted = [True, *(name in settings.categories for name in PM_CATEGORIES)]
    parts = [
        (np.flatnonzero(mask), at_s[mask], np.full(int(mask.sum()), c))
        for c, (mask, at_s) in enumerate(shown)
        if wanted[c]
    ]
    trade, at, category = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((category, at, trade))
    return trade[order], at[order], category[order]


# ---- the same market as strands in a database -------------------------------------------------

SIMULATED = "a simulated market: may be dropped and written again"
"""The comment on a table that `write_strands` made: without it a table is somebody's own."""

_STRAND_COLUMNS = """(
  id text PRIMARY KEY, module text, kind text NOT NULL, symbol text, timeframe text,
  position_id text, trade_id uuid, content jsonb, regime_context jsonb,
  created_at timestamptz NOT NULL, updated_at timestamptz
)"""
_OWN_DIMENSIONS = ("timeframe", "A_mode", "E_mode")
_OTHER_NAMES = {"curator": "curator_id", "chain": "token_chain", "mcap_bucket": "bucket"}
_PROFIT_NAMES = ("pnl_usd", "rpnl_usd", "total_pnl_usd")
_BROKEN = (
    *("no rr", "rr is NaN", "no pattern key", "no exit", "no actions"),
    *("no trade id", "no content"),
)


@dataclass(frozen=True, slots=True)
class WrittenStrands:
    """What `write_strands` wrote: rows of all kinds, and what must come back rejected."""

    n_rows: int
    n_late: int
    n_duplicates: int
    rejected: Mapping[Reason, int]


class _Strand(NamedTuple):
    """One row of the table, its JSON as objects."""

    id: str
    module: str
    kind: str
    symbol: str
    timeframe: str | None
    position_id: str
    trade_id: str | None
    content: Mapping[str, Any] | None
    regime_context: Mapping[str, str]
    created_at: datetime
    updated_at: datetime | None


def write_strands(conn: Connection[Any], market: Market, schema: str) -> WrittenStrands:
    """Writes the market as the table `ad_strands` of a schema, in one transaction.

    Reading it gives `market.trades` and the rejected rows. The rows stand in no order; names of
    fields vary as they do in the wild; some closings are written late, some twice (the older one
    with another outcome), some trades carry their actions inside the closing, some are broken.

    Raises:
        UserError: when the schema holds such a table that was not simulated.
    """
    rng = np.random.default_rng([market.settings.seed, 1])
    written = list(_strands(rng, market))
    name = sql.Identifier(schema, "ad_strands")
    with conn.transaction():
        conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        _drop_simulated(conn, schema, name)
        conn.execute(sql.SQL("CREATE TABLE {} ").format(name) + sql.SQL(_STRAND_COLUMNS))
        comment = sql.SQL("COMMENT ON TABLE {} IS {}")
        conn.execute(comment.format(name, sql.Literal(SIMULATED)))
        with conn.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(name)) as copy:
            for k in rng.permutation(len(written)):
                copy.write_row(_plain(written[k][1]))
    return _counted(written)


def append_strands(conn: Connection[Any], trades: Iterable[ClosedTrade], schema: str) -> None:
    """Writes the strands of more trades; the caller commits."""
    name = sql.Identifier(schema, "ad_strands")
    with conn.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(name)) as copy:
        for trade in trades:
            copy.write_row(_plain(_closing(trade, 0, False, timedelta(0))))
            for row in _action_rows(trade, 0, False):
                copy.write_row(_plain(row))


def _drop_simulated(conn: Connection[Any], schema: str, name: sql.Identifier) -> None:
    oid = "to_regclass(%s)"
    row = conn.execute(
        f"SELECT obj_description({oid}, 'pg_class') WHERE {oid} IS NOT NULL",
        [name.as_string(conn)] * 2,
    ).fetchone()
    if row is None:
        return
    if SIMULATED not in (row if isinstance(row, tuple) else row.values()):
        raise UserError(
            f"the table {schema}.ad_strands holds trades that were not simulated: write the"
            " simulated market to another schema"
        )
    conn.execute(sql.SQL("DROP TABLE {}").format(name))


def _plain(strand: _Strand) -> tuple[object, ...]:
    content = None if strand.content is None else json.dumps(strand.content)
    return strand._replace(content=content, regime_context=json.dumps(strand.regime_context))  # type: ignore[arg-type]


def _counted(written: Sequence[tuple[str, _Strand]]) -> WrittenStrands:
    labels = Counter(label for label, _ in written)
    reasons = {
        "no rr": Reason.BAD_RR,
        "rr is NaN": Reason.BAD_RR,
        "no pattern key": Reason.NO_PATTERN_KEY,
        "no exit": Reason.BAD_TIMESTAMP,
        "no actions": Reason.NO_ACTIONS,
        "no trade id": Reason.NO_TRADE_ID,
        "no content": Reason.BAD_PAYLOAD,
    }
    rejected: Counter[Reason] = Counter()
    for label, reason in reasons.items():
        rejected[reason] += labels[label]
    return WrittenStrands(len(written), labels["late"], labels["duplicate"], +rejected)


def _strands(rng: np.random.Generator, market: Market) -> Iterator[tuple[str, _Strand]]:
    """All rows with a label: what is odd about the row, empty for an ordinary one."""
    settings, n = market.settings, len(market.trades)
    late, twice, embedded = (
        rng.random(n) < share
        for share in (settings.late_share, settings.duplicate_share, settings.embedded_share)
    )
    delays = rng.uniform(2, 10, n)
    for k, trade in enumerate(market.trades):
        delay = timedelta(days=delays[k]) if late[k] else timedelta(seconds=2)
        closing = _closing(trade, k, embedded[k], delay)
        yield ("late" if late[k] else ""), closing
        yield from (("", row) for row in _action_rows(trade, k, embedded[k]))
        if twice[k]:
            yield "duplicate", _older(closing, trade)
    for k in range(round(n * settings.broken_share)):
        copied = market.trades[int(rng.integers(n))]
        yield from _broken(copied._replace(trade_id=_new_id(rng)), k)


def _new_id(rng: np.random.Generator) -> str:
    return str(uuid.UUID(bytes=rng.bytes(16), version=4))


def _closing(trade: ClosedTrade, k: int, embedded: bool, delay: timedelta) -> _Strand:
    content: dict[str, Any] = {
        "trade_id": trade.trade_id,
        "trade_summary": _summary(trade, k),
        "entry_context": _entry_context(trade, k),
    }
    if embedded:
        actions = [_embedded(action) for action in trade.actions if action.module == "pm"]
        content["completed_trades"] = [{"actions": actions}]
    created_at = trade.closed_at + delay
    updated_at = created_at + timedelta(seconds=3) if k % 3 else None
    regime = _regimes(trade.actions[-1])
    # A late row's regime is that of the closing, by then out of date.
    if delay > timedelta(days=1):
        regime = {}
    row = _strand(trade, f"{trade.trade_id}-closed", "position_closed", content, created_at)
    return row._replace(regime_context=regime, updated_at=updated_at)


def _strand(
    trade: ClosedTrade, row_id: str, kind: str, content: Mapping[str, Any], created_at: datetime
) -> _Strand:
    short = trade.trade_id[:8]
    timeframe = trade.actions[0].scope.get("timeframe")
    return _Strand(
        *(row_id, "pm", kind, f"COIN{short[:3].upper()}", timeframe, f"pos-{short}"),
        *(trade.trade_id, content, {}, created_at, None),
    )


def _summary(trade: ClosedTrade, k: int) -> dict[str, Any]:
    hold_hours = trade.hold_hours or 0.0
    payback_hours = trade.payback_hours
    summary: dict[str, Any] = {
        "rr": trade.rr,
        _PROFIT_NAMES[k % 3]: trade.pnl_usd,
        "exit_timestamp": trade.closed_at.isoformat(),
        "time_to_payback_days": None if payback_hours is None else round(payback_hours / 24, 4),
    }
    if k % 3 == 2:
        return {**summary, "duration_hours": hold_hours}
    opened = trade.opened_at.isoformat() if trade.opened_at else None
    return {**summary, "entry_timestamp": opened, "hold_time_days": hold_hours / 24.0}


def _entry_context(trade: ClosedTrade, k: int) -> dict[str, Any]:
    names = _OTHER_NAMES if k % 2 else {}
    kept = {d: v for d, v in trade.actions[0].scope.items() if d not in REGIME_DIMENSIONS}
    context: dict[str, Any] = {
        names.get(d, d): v for d, v in kept.items() if d not in _OWN_DIMENSIONS
    }
    rank = context.get("bucket_rank_position")
    return {**context, "bucket_rank_position": int(rank) if rank else None, "note": ""}


def _regimes(action: Action) -> dict[str, str]:
    return {d: v for d, v in action.scope.items() if d in REGIME_DIMENSIONS}


def _embedded(action: Action) -> dict[str, Any]:
    return {
        "id": action.action_id,
        "pattern_key": action.pattern_key,
        "action_category": action.action_category,
        "scope": action.scope,
    }


def _action_rows(trade: ClosedTrade, k: int, embedded: bool) -> Iterator[_Strand]:
    opened_at = trade.opened_at or trade.closed_at
    for j, action in enumerate(trade.actions):
        if embedded and action.module == "pm":
            continue
        key = action.pattern_key
        if k % 4 == 1:
            key = f"module={action.module}|pattern_key={key.partition('.')[2]}"
        own = {d: action.scope[d] for d in _OWN_DIMENSIONS if d in action.scope}
        content = {"trade_id": trade.trade_id, "pattern_key": key, "scope": own}
        kind = "decision_lowcap"
        # Allocations come as decisions, and as actions of that category.
        if action.module == "pm" or (k % 5 == 0 and not embedded):
            kind = "pm_action"
            content["action_category"] = action.action_category
        done = (j + 1) / len(trade.actions)
        row = _strand(
            *(trade, action.action_id, kind, content),
            opened_at + done * (trade.closed_at - opened_at),
        )
        yield row._replace(module=action.module, regime_context=_regimes(action))


def _older(closing: _Strand, trade: ClosedTrade) -> _Strand:
    """The same closing as first written, with a provisional outcome."""
    content = closing.content or {}
    summary = {**content["trade_summary"], "rr": round(trade.rr / 2, 3)}
    return closing._replace(
        id=f"{closing.id}-first",
        content={**content, "trade_summary": summary},
        created_at=trade.closed_at + timedelta(seconds=1),
        updated_at=None,
    )


def _broken(trade: ClosedTrade, k: int) -> Iterator[tuple[str, _Strand]]:
    """A trade that cannot be used, in one of the ways of `_BROKEN` (which labels its closing)."""
    how = _BROKEN[k % len(_BROKEN)]
    entry = next(a for a in trade.actions if a.module == "pm" or len(trade.actions) == 1)
    one = trade._replace(actions=(entry._replace(action_id=f"{trade.trade_id}/0-entry"),))
    closing = _closing(one, k, embedded=False, delay=timedelta(seconds=2))
    content = dict(closing.content or {})
    summary = dict(content["trade_summary"])
    if how == "no rr":
        del summary["rr"]
    elif how == "rr is NaN":
        summary["rr"] = "NaN"
    elif how == "no exit":
        del summary["exit_timestamp"]
    elif how == "no trade id":
        content["trade_id"] = None
        closing = closing._replace(trade_id=None)
    content["trade_summary"] = summary
    yield how, closing._replace(content=None if how == "no content" else content)
    for row in _action_rows(one, k, embedded=False) if how != "no actions" else ():
        dropped = ("pattern_key",) if how == "no pattern key" else ()
        kept = {name: v for name, v in (row.content or {}).items() if name not in dropped}
        yield "", row._replace(content=kept)
