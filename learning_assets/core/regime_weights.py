"""In which market regime does which multiplier tell whether an edge holds up?

Weight = prior + n/(n + 20) · (partial rank correlation − (prior − 1)), within [0.3, 1.7]; the prior
is 1 for a module, and the module's weight for one of its groups. A sample is a latent factor in a
regime: how its edge there compares (Spearman 1904; partial: Kendall 1942) with each multiplier
measured on the trades outside that regime, the other multipliers and the edge outside held fixed.
Which regime is in force is in `core.regimes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable
from learning_assets.core.factors import Factor, strength_order
from learning_assets.core.learn import outcomes_of, patterns_as_slices
from learning_assets.core.membership import trades_of
from learning_assets.core.mining import group_of
from learning_assets.core.multipliers import Outcomes, measure, multipliers_of
from learning_assets.core.records import GroupKey, Lesson, LessonStatus, Multipliers
from learning_assets.core.regimes import UNKNOWN_STATE, fallbacks
from learning_assets.core.residual import clustered_se

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Four = tuple[float, float, float, float]
"""One number per multiplier: time, field, recurrence, variance."""

EVERY = "*"
"""Pattern key and category of the weights pooled over a module, and the signature of any regime."""

MODULES = ("dm", "pm")
BOUNDS = (0.3, 1.7)
FACTOR_BOUNDS = (0.5, 1.5)
"""What a single multiplier may do to an edge."""

FEWEST_SAMPLES = 12
"""Factors that a weight needs at least."""

FEWEST_TRADES = 10
"""Trades that a slice and its complement need at least, inside the regime and outside it."""

_NAMES = ("time", "field", "recurrence", "variance")
_NEUTRAL: Four = (1.0, 1.0, 1.0, 1.0)
_SHRINK_N = 20.0
_SIGNIFICANT = 0.03
_INTERVAL = 0.90
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class RegimeWeights:
    """The weights of the four multipliers for a group in a regime, each in [0.3, 1.7].

    `group` has the pattern key and category `*` for the weights pooled over a module.
    `n_samples` counts (latent factor, regime) pairs, `confidence` is n/(n + 20).
    """

    group: GroupKey
    regime_signature: str
    time: float
    field: float
    recurrence: float
    variance: float
    n_samples: int
    confidence: float

    @property
    def four(self) -> Four:
        """The weights in the order of the multipliers."""
        return self.time, self.field, self.recurrence, self.variance


@dataclass(frozen=True, slots=True)
class RegimeEdge:
    """What a group's trades earned in one state of a regime dimension more than in the others.

    `edge_r`, and its 90 % interval from `low` to `high`, in R; `n` distinct trades in the state.
    """

    group: GroupKey
    dim: str
    state: str
    n: int
    edge_r: float
    low: float
    high: float


# --- use -------------------------------------------------------------------------------------


def weights_in_force(
    rows: Sequence[RegimeWeights], group: GroupKey, signature: str
) -> RegimeWeights | None:
    """The weights of the group in the regime, None where nothing was measured.

    The longest signature for which there are any counts; there, those of the group before those
    pooled over its module.
    """
    by_key = {(row.group, row.regime_signature): row for row in rows}
    for shorter in fallbacks(signature):
        for key in (group, _pooled(group.module)):
            if (key, shorter) in by_key:
                return by_key[key, shorter]
    return None


def _pooled(module: str) -> GroupKey:
    return GroupKey(module, EVERY, EVERY)


def group_medians(lessons: Sequence[Lesson]) -> dict[GroupKey, Four]:
    """The median of each multiplier over the active lessons of each group."""
    by_group: dict[GroupKey, list[Four]] = {}
    for lesson in lessons:
        if lesson.status is LessonStatus.ACTIVE:
            by_group.setdefault(lesson.group, []).append(four_of(lesson.multipliers))
    return {key: _as_four(np.median(found, axis=0)) for key, found in by_group.items()}


def regime_factor(multipliers: Multipliers, medians: Four, weights: RegimeWeights) -> float:
    """Π clip((m / median of the group)^(w − 1), 0.5, 1.5) over the four multipliers."""
    ratios = np.array(four_of(multipliers)) / np.array(medians)
    return float(np.prod(np.clip(ratios ** (np.array(weights.four) - 1.0), *FACTOR_BOUNDS)))


def four_of(m: Multipliers) -> Four:
    """The multipliers in the order in which weights come."""
    return m.time, m.field, m.recurrence, m.variance


def by_multiplier(values: Four) -> dict[str, float]:
    """One number per multiplier, by its name."""
    return dict(zip(_NAMES, values, strict=True))


def _as_four(values: Floats) -> Four:
    time, field, recurrence, variance = values.tolist()
    return time, field, recurrence, variance


# --- learning --------------------------------------------------------------------------------


def learn_regime_weights(
    lessons: Sequence[Lesson],
    events: EventTable,
    config: LearningConfig,
    as_of: datetime,
    factors: Sequence[Factor],
) -> tuple[RegimeWeights, ...]:
    """The weights of each module and group in each regime that has samples enough.

    From the active lessons, one for each factor, and the trades of the look-back before `as_of`.
    Every module has a row for any regime (`*`), its weights 1 where there is no evidence: too few
    samples, a multiplier that does not vary, a correlation that may be chance. Ordered by module,
    signature and group.
    """
    window = events.window(as_of, config.look_back_days)
    chosen = _representatives(lessons, factors)
    pairs = [p for c in _contexts(window, chosen, config, as_of) for p in c.pairs(config)]
    return tuple(
        row
        for module in MODULES
        for row in _of_module(module, [p for p in pairs if p.group.module == module])
    )


def _representatives(lessons: Sequence[Lesson], factors: Sequence[Factor]) -> list[Lesson]:
    """One active lesson per factor: its representative, else the strongest."""
    factor_of = {name: factor for factor in factors for name in factor.member_ids}
    chosen: dict[str, Lesson] = {}
    for lesson in sorted(lessons, key=strength_order):
        factor = factor_of.get(lesson.lesson_id)
        if lesson.status is not LessonStatus.ACTIVE:
            continue
        # Lesson ids hold slashes, factor ids do not.
        cause = factor.factor_id if factor else lesson.lesson_id
        if cause not in chosen or (factor and factor.representative == lesson.lesson_id):
            chosen[cause] = lesson
    return sorted(chosen.values(), key=lambda lesson: lesson.lesson_id)


# --- samples ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pair:
    """A factor in a regime, by the lesson that represents it.

    `inside_r` is the edge in the regime in the direction expected from outside, `outside_r` the
    size of that one, both in R; `logs` are the logarithms of the multipliers outside.
    """

    group: GroupKey
    signature: str
    lesson_id: str
    inside_r: float
    outside_r: float
    logs: Four

    @property
    def level(self) -> int:
        """How many dimensions its regime has."""
        return len(fallbacks(self.signature)) - 1


@dataclass(frozen=True, slots=True)
class _Context:
    """Lessons that are compared within the same trades, and the regimes of these trades.

    `members` (lessons × T) and `regimes` (signature → length T) say which of the trades belong.
    """

    lessons: Sequence[Lesson]
    members: Sequence[Mask]
    outcomes: Outcomes
    regimes: Mapping[str, Mask]

    def pairs(self, config: LearningConfig) -> Iterator[_Pair]:
        """The samples, for every regime with trades enough inside and outside."""
        for signature, inside in self.regimes.items():
            outside = _where(self.outcomes, ~inside)
            enough = [i for i, mine in enumerate(self.members) if _is_enough(mine, inside)]
            masks = [self.members[i][~inside] for i in enough]
            deltas = [_difference(mask, outside.rr) for mask in masks]
            measured = [
                measure(
                    mask,
                    outside,
                    delta,
                    float(outside.rr[mask].var(ddof=1)),
                    config.segment_n_min,
                    config.recurrence_tau_days,
                )
                for mask, delta in zip(masks, deltas, strict=True)
            ]
            rr = self.outcomes.rr[inside]
            for i, delta, known in zip(enough, deltas, multipliers_of(measured), strict=True):
                lesson = self.lessons[i]
                there = float(np.sign(delta)) * _difference(self.members[i][inside], rr)
                logs = _as_four(np.log(four_of(known)))
                yield _Pair(lesson.group, signature, lesson.lesson_id, there, abs(delta), logs)


def _difference(mask: Mask, rr: Floats) -> float:
    return float(rr[mask].mean() - rr[~mask].mean())


def _is_enough(mine: Mask, inside: Mask) -> bool:
    n, here, both = int(mine.sum()), int(inside.sum()), int((mine & inside).sum())
    counts = (both, here - both, n - both, len(mine) - here - n + both)
    return min(counts) >= FEWEST_TRADES


def _where(o: Outcomes, keep: Mask) -> Outcomes:
    return Outcomes(
        o.rr[keep], o.days_to_payback[keep], o.segment[keep], o.week[keep], o.age_days[keep]
    )


def _contexts(
    events: EventTable, lessons: Sequence[Lesson], config: LearningConfig, as_of: datetime
) -> Iterator[_Context]:
    """Lessons of a group; those on a whole pattern are compared within their category."""
    by_context: dict[tuple[GroupKey, ...], list[Lesson]] = {}
    for lesson in lessons:
        key, whole = lesson.group, not lesson.scope_subset
        same = (k for k in events.groups if (k.module, k[2]) == (key.module, key[2]))
        keys = tuple(same) if whole else (key,)
        if key in events.groups:
            by_context.setdefault(keys, []).append(lesson)
    for keys, mine in by_context.items():
        is_group = len(keys) == 1
        group = group_of(events, keys[0]) if is_group else patterns_as_slices(events, keys)
        masks = [np.isin(group.trades, trades) for trades in trades_of(events, mine)]
        states = _states(events, keys, config.regime_dims)
        outcomes = outcomes_of(group, events, config, as_of)
        yield _Context(mine, masks, outcomes, _regimes(states, config.regime_dims))


def _states(
    events: EventTable, keys: Sequence[GroupKey], dims: Sequence[str]
) -> list[NDArray[np.object_]]:
    """By dimension the state of each trade of the groups, `?` where unknown, by first action."""
    index = [i for i, key in enumerate(events.groups) if key in keys]
    rows = np.flatnonzero(np.isin(events.group, index))
    _, first = np.unique(events.trade[rows], return_index=True)
    found = []
    for dim in dims:
        if dim not in events.dims:
            found.append(np.full(len(first), UNKNOWN_STATE, dtype=object))
            continue
        d = events.dims.index(dim)
        names = np.array([UNKNOWN_STATE, *events.values[d]], dtype=object)
        found.append(names[events.codes[d, rows[first]]])
    return found


def _regimes(states: Sequence[NDArray[np.object_]], dims: Sequence[str]) -> dict[str, Mask]:
    """The trades of every signature and of its fallbacks, those without any state left out."""
    masks: dict[str, Mask] = {}
    for level in range(1, len(dims) + 1):
        for known in sorted(set(zip(*states[:level], strict=True))):
            if set(known) != {UNKNOWN_STATE}:
                name = "|".join(f"{d}={s}" for d, s in zip(dims, known, strict=False))
                masks[name] = np.all([s == k for s, k in zip(states, known, strict=False)], axis=0)
    return masks


# --- from samples to weights -----------------------------------------------------------------


def _of_module(module: str, pairs: Sequence[_Pair]) -> list[RegimeWeights]:
    """The module's weights in every regime, and those of its groups that have samples enough."""
    in_regime: dict[str, list[_Pair]] = {EVERY: [p for p in pairs if p.level == 1]}
    for pair in pairs:
        in_regime.setdefault(pair.signature, []).append(pair)
    rows: list[RegimeWeights] = []
    for signature in sorted(in_regime, key=lambda name: (len(fallbacks(name)), name)):
        there = in_regime[signature]
        if _n_factors(there) < FEWEST_SAMPLES and signature != EVERY:
            continue
        pooled = _weights(_pooled(module), signature, there, _prior(rows, module, signature))
        rows.append(pooled)
        for key in sorted({pair.group for pair in there}):
            mine = [pair for pair in there if pair.group == key]
            if _n_factors(mine) >= FEWEST_SAMPLES:
                rows.append(_weights(key, signature, mine, pooled.four))
    return rows


def _prior(rows: Sequence[RegimeWeights], module: str, signature: str) -> Four:
    """The module's weights in the regime that is one dimension coarser; 1 in the coarsest."""
    coarser = {row.regime_signature: row for row in rows if row.group == _pooled(module)}
    for shorter in fallbacks(signature)[1:-1]:
        if shorter in coarser:
            return coarser[shorter].four
    return _NEUTRAL


def _n_factors(pairs: Sequence[_Pair]) -> int:
    return len({pair.lesson_id for pair in pairs})


def _weights(group: GroupKey, signature: str, pairs: Sequence[_Pair], prior: Four) -> RegimeWeights:
    """The prior, moved by what the samples say; 1 stays 1 where they say nothing for sure."""
    samples, n = _Samples.of(pairs), len(pairs)
    confidence = n / (n + _SHRINK_N)
    weights = [
        p + confidence * (r - (p - 1.0)) if r is not None and (is_sure or p != 1.0) else p
        for p, (r, is_sure) in zip(prior, samples.correlations(), strict=True)
    ]
    four = _as_four(np.clip(weights, *BOUNDS))
    return RegimeWeights(group, signature, *four, n, confidence)


@dataclass(frozen=True, slots=True)
class _Samples:
    """Ranks (n × 6: edge inside, edge outside, four multipliers) within each regime, 0–1.

    Multipliers are first compared with the median of their group, as they are when used.
    """

    ranks: Floats
    n_factors: int

    @classmethod
    def of(cls, pairs: Sequence[_Pair]) -> _Samples:
        columns = np.array([(p.inside_r, p.outside_r, *p.logs) for p in pairs]).reshape(-1, 6)
        ranks = np.zeros(columns.shape)
        regime = np.array([p.signature for p in pairs], dtype=object)
        group = np.array(["/".join(p.group) for p in pairs], dtype=object)
        for signature in set(regime):
            here = regime == signature
            for key in set(group[here]):
                mine = here & (group == key)
                columns[mine, 2:] -= np.median(columns[mine, 2:], axis=0)
            # Medians leave rounding errors, which are no differences.
            ranks[here] = stats.rankdata(columns[here].round(12), axis=0) / (here.sum() + 1)
        return cls(ranks, _n_factors(pairs))

    def correlations(self) -> list[tuple[float | None, bool]]:
        """Partial rank correlation of each multiplier with the edge inside, and if it is sure.

        None where there are too few samples, or where the multiplier (or the edge) does not vary
        beyond what the others say of it. A factor that occurs in several regimes counts as one
        for the degrees of freedom: its samples are not independent.
        """
        return [self._correlation(2 + k) for k in range(4)]

    def _correlation(self, column: int) -> tuple[float | None, bool]:
        if self.n_factors < FEWEST_SAMPLES:
            return None, False
        others = [c for c in range(1, 6) if c != column and np.ptp(self.ranks[:, c]) > 0]
        fixed = np.column_stack([np.ones(len(self.ranks)), self.ranks[:, others]])
        both = self.ranks[:, [0, column]]
        left = both - fixed @ np.linalg.lstsq(fixed, both)[0]
        if min(np.linalg.norm(left, axis=0)) < _ROUNDING * len(left):
            return None, False
        r = float(np.clip(stats.pearsonr(left[:, 0], left[:, 1]).statistic, -1.0, 1.0))
        return r, _p_value(r, self.n_factors - 2 - len(others)) < _SIGNIFICANT


def _p_value(r: float, free: int) -> float:
    """Two-sided, of a partial correlation with `free` degrees of freedom (Fisher 1924)."""
    if abs(r) >= 1.0:
        return 0.0
    return float(2 * stats.t.sf(abs(r) * np.sqrt(free / (1 - r * r)), free))


# --- the plain question ----------------------------------------------------------------------


def edges_by_regime(
    events: EventTable, config: LearningConfig, as_of: datetime
) -> tuple[RegimeEdge, ...]:
    """What each group earned in each state of each regime dimension, against its other states.

    From the trades of the look-back before `as_of`, each once, by the state of its first action.
    Errors are clustered by UTC closing day, the interval is Student's with the days of the rarer
    side. A state is left out where it or the rest has fewer than ten trades, or closed on a single
    day. Ordered by group, dimension and state.
    """
    window = events.window(as_of, config.look_back_days)
    found: list[RegimeEdge] = []
    for key in window.groups:
        group = group_of(window, key)
        rr, states = window.rr[group.trades], _states(window, [key], config.regime_dims)
        for dim, state in zip(config.regime_dims, states, strict=True):
            known = state != UNKNOWN_STATE
            for name in sorted(set(state[known])):
                at = _edge(state[known] == name, rr[known], group.day[known])
                if at is not None:
                    found.append(RegimeEdge(key, dim, name, *at))
    return tuple(found)


def _edge(mask: Mask, rr: Floats, day: Ints) -> tuple[int, float, float, float] | None:
    """n, mean difference and its interval; None on too little data."""
    n, m = int(mask.sum()), int((~mask).sum())
    days = min(len(np.unique(day[mask])), len(np.unique(day[~mask])))
    if min(n, m) < FEWEST_TRADES or days < 2:
        return None
    edge = _difference(mask, rr)
    influence = np.where(mask, (rr - rr[mask].mean()) / n, (rr[~mask].mean() - rr) / m)
    half = stats.t.ppf((1 + _INTERVAL) / 2, days - 1) * clustered_se(influence, day)
    return n, edge, edge - float(half), edge + float(half)
