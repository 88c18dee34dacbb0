"""From events to lessons: groups, baselines, the search in each, and what becomes of each slice.

What a group's search does is in `core.residual`; what follows from lessons is in
`core.overrides`. Everything is recomputed from the events that closed before as_of; cached
cut-offs and earlier statuses are the only memory.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from learning_assets.core.attribution import Block, JointSearch, Limits
from learning_assets.core.config import LearningConfig
from learning_assets.core.dayshock import LEAST_VARIANCE, DayShock
from learning_assets.core.events import EventTable, instant
from learning_assets.core.mining import (
    Group,
    SliceTable,
    find_slice,
    group_of,
    name_slices,
)
from learning_assets.core.multipliers import (
    Measured,
    Outcomes,
    age_of_week,
    edge_raw,
    measure,
    multipliers_of,
    week_of,
)
from learning_assets.core.records import (
    Calibration,
    GroupKey,
    Lesson,
    LessonStatus,
    Multipliers,
    SliceStats,
    lesson_id,
)
from learning_assets.core.residual import (
    Cutoffs,
    JointFit,
    Memory,
    Search,
    calibrate,
    described,
    fit_jointly,
    winsorised,
)
from learning_assets.core.scope import ScopeSubset
from learning_assets.core.walk import in_parallel

Floats = NDArray[np.float64]
Calibrations = Mapping[GroupKey, Calibration]

ALL_PATTERNS = "*"
"""Pattern key of the comparison of a category's patterns with each other."""

SIZING_FIRST = frozenset({"entry", "allocation"})
"""Categories that open a trade: their groups are searched together."""

_DECIDED = (LessonStatus.ACTIVE, LessonStatus.DEPRECATED)
_PATTERN_DIM = "pattern_key"
_POWER_Z = 0.8416  # a normal variable exceeds its mean minus this with 80 %
_RELATED = 0.1
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class GroupSearch:
    """What the search of one group found."""

    search: Search
    cut: Cutoffs
    fit: JointFit
    calibration: Calibration

    @property
    def group(self) -> Group:
        """The group that was searched."""
        return self.search.group


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search of the events found: their groups, and the patterns of each category."""

    events: EventTable
    groups: tuple[GroupSearch, ...]
    patterns: tuple[GroupSearch, ...]

    def of(self, module: str) -> Searched:
        """The part that belongs to a module."""
        return Searched(
            self.events,
            tuple(f for f in self.groups if f.group.key.module == module),
            tuple(f for f in self.patterns if f.group.key.module == module),
        )


@dataclass(frozen=True, slots=True)
class DetectionLimit:
    """The smallest edge (R) that would have been found with 80 % power, and at how many trades."""

    edge_r: float
    n: int


@dataclass(frozen=True, slots=True)
class ModuleLearning:
    """What was learned about a module.

    `calibrations` are those of all groups that were searched, the other module's that size a
    trade included. `slices_tested` counts distinct slices, `redundant_total` those of that status
    before the list was cut. `detection_limit` is None where no slice could be tested.
    """

    module: str
    lessons: tuple[Lesson, ...]
    calibrations: tuple[Calibration, ...]
    n_trades: int
    slices_tested: int
    redundant_total: int
    detection_limit: DetectionLimit | None


def learn_module(
    events: EventTable,
    module: str,
    config: LearningConfig,
    as_of: datetime,
    *,
    calibrations: Calibrations | None = None,
    previous: Sequence[Lesson] = (),
) -> ModuleLearning:
    """Learn the lessons of `module` ("pm" or "dm") from the trades closed before `as_of`.

    `previous` are the module's lessons of the last time (their statuses are the memory of what
    was active), `calibrations` the cached cut-offs of both modules. Too little data gives no
    lessons and no detection limit; it is never an error.
    """
    window = events.window(as_of, config.look_back_days)
    searched = search(window, (module,), config, as_of, calibrations or {})
    return lessons_of(searched, module, config, as_of, previous)


# --- the search ----------------------------------------------------------------------------


def search(
    events: EventTable,
    modules: Sequence[str],
    config: LearningConfig,
    as_of: datetime,
    cached: Calibrations,
) -> Searched:
    """Search the groups of `modules`.

    The groups that size a trade are always searched, those of both modules together, because
    they share outcomes; the other categories of pm follow, without the allocation's effects.
    """
    task = _Task(events, config, as_of, cached, Memory(events.rr))
    sizing = [key for key in events.groups if key.action_category in SIZING_FIRST]
    rest = [k for k in events.groups if k.module in modules and k not in sizing]
    first = task.joint(sizing, np.zeros(events.n_trades))
    allocation = sum(
        (b.effect for b in first if b.group.key.module == "dm"), np.zeros(events.n_trades)
    )
    second = [block for key in rest for block in task.joint([key], allocation)]
    found = [task.finish(first, i) for i in range(len(first))]
    found += [task.finish([block], 0) for block in second]
    return Searched(events, tuple(found), tuple(task.patterns(modules, [*first, *second])))


def _testable(events: EventTable, group: Group, config: LearningConfig) -> bool:
    """Whether there are trades enough, with outcomes that differ."""
    rr = events.rr[group.trades]
    return (
        group.n_trades > config.n_min
        and bool(group.dims)
        and bool(np.ptp(winsorised(rr, config.winsor)) > 0)
    )


def patterns_as_slices(events: EventTable, keys: Sequence[GroupKey]) -> Group:
    """A category as a group whose only dimension is the pattern."""
    index = [events.groups.index(key) for key in keys]
    rows = np.flatnonzero(np.isin(events.group, index))
    trades, row_trade = np.unique(events.trade[rows], return_inverse=True)
    position = {g: i + 1 for i, g in enumerate(index)}
    codes = np.array([[position[g] for g in events.group[rows].tolist()]], dtype=np.int32)
    return Group(
        GroupKey(keys[0].module, ALL_PATTERNS, keys[0].action_category),
        trades.astype(np.int64),
        events.day[trades],
        row_trade.astype(np.int64),
        codes,
        np.array([len(keys)]),
        (_PATTERN_DIM,),
        (tuple(key.pattern_key for key in keys),),
    )


@dataclass(frozen=True, slots=True)
class _Task:
    """A search in progress: the events and what every group of them is searched with."""

    events: EventTable
    config: LearningConfig
    as_of: datetime
    cached: Calibrations
    memory: Memory

    @property
    def cells(self) -> Mapping[str, int]:
        """Number of cut-offs per module, which share the family-wise error."""
        count = dict.fromkeys(("pm", "dm"), 0)
        for key in self.events.groups:
            count[key.module] += 2 * self.config.max_scope_dims
        for module, _ in {(k.module, k.action_category) for k in self.events.groups}:
            count[module] += 2
        return count

    def tail(self, module: str) -> float:
        """Chance per cell that keeps the module at its family-wise error (Šidák)."""
        return -math.expm1(math.log1p(-self.config.family_wise_error) / self.cells[module])

    def settings(self, module: str, y: Floats) -> str:
        """What a cached calibration must have been made with.

        A few cells more change little; outcomes that spread by a fifth more or less do.
        """
        c = self.config
        variance = max(float(winsorised(y, c.winsor).var()), LEAST_VARIANCE)
        spread = round(2 * math.log2(variance))
        return (
            f"{c.n_min},{c.max_scope_dims},{c.family_wise_error:g},{c.rotations},{c.winsor:g},"
            f"{c.look_back_days},{c.seed},{round(math.log2(self.cells[module]))},{spread}"
        )

    def joint(self, keys: Sequence[GroupKey], taken_out: Floats) -> list[Block]:
        """Search the testable groups among `keys` together."""
        blocks = []
        for key in keys:
            group = group_of(self.events, key)
            if _testable(self.events, group, self.config):
                blocks.append(self._block(group, self._baseline(key), taken_out))
        return self._searcher().run(blocks) if blocks else []

    def _searcher(self) -> JointSearch:
        c = self.config
        limits = Limits(c.n_min, c.max_scope_dims, c.winsor)
        return JointSearch(limits, self._calibrate, self.memory)

    def _calibrate(self, search: Search, taken: Sequence[ScopeSubset]) -> Cutoffs:
        key = search.group.key
        tail, rng = self.tail(key.module), self._rng(key)
        return calibrate(search, taken, rotated=self.config.rotations, tail=tail, rng=rng)

    def _baseline(self, key: GroupKey) -> float:
        """Mean rr over the distinct trades of the same module and category."""
        same = [
            i
            for i, k in enumerate(self.events.groups)
            if (k.module, k.action_category) == (key.module, key.action_category)
        ]
        trades = np.unique(self.events.trade[np.isin(self.events.group, same)])
        return float(self.events.rr[trades].mean())

    def _block(self, group: Group, baseline_r: float, taken_out: Floats) -> Block:
        y = (self.events.rr - taken_out)[group.trades] - baseline_r
        old = self.cached.get(group.key)
        cut = None
        if old is not None and self._still_good(old, group, y):
            shock = DayShock(old.noise_variance, old.day_variance, old.day_autocorrelation)
            cut = Cutoffs(old.cutoffs, shock)
        return Block(group, y, np.zeros(self.events.n_trades), (), cut, cut is not None)

    def finish(self, blocks: Sequence[Block], i: int) -> GroupSearch:
        """The final fit of block i, and its calibration for the next time."""
        block = blocks[i]
        key = block.group.key
        assert block.cut is not None
        search = self._searcher().search_of(blocks, i)
        cached = self.cached[key] if block.is_cached else self._calibration(block, block.cut)
        fit = fit_jointly(search, block.taken, block.cut.shock)
        return GroupSearch(search, block.cut, fit, cached)

    def patterns(self, modules: Sequence[str], blocks: Sequence[Block]) -> Iterator[GroupSearch]:
        """Compare the patterns of each category, on what their slices leave unexplained."""
        categories = {(k.module, k.action_category) for k in self.events.groups}
        explained = {b.group.key: b.effect for b in blocks}
        for module, category in sorted(categories):
            keys = [
                k for k in self.events.groups if (k.module, k.action_category) == (module, category)
            ]
            if module not in modules or len(keys) < 2:
                continue
            group = patterns_as_slices(self.events, keys)
            out = sum(
                (explained[k] for k in keys if k in explained), np.zeros(self.events.n_trades)
            )
            if module == "pm":
                out = out + sum((e for k, e in explained.items() if k.module == "dm"), 0.0)
            if _testable(self.events, group, self.config):
                block = self._block(group, self._baseline(keys[0]), out)
                [done] = self._searcher().run([block])
                yield self.finish([self._agreeing(done)], 0)

    def _agreeing(self, block: Block) -> Block:
        """Without patterns whose trades, all in all, earn the other way than what is left says."""
        rr = self.events.rr[block.group.trades]
        search = self._searcher().search_of([block], 0)
        kept = []
        for s in block.taken:
            inside = block.group.members(s)
            left = search.y[inside].mean() - search.y[~inside].mean()
            if left * (rr[inside].mean() - rr[~inside].mean()) > 0:
                kept.append(s)
        return replace(block, taken=tuple(kept))

    def _still_good(self, old: Calibration, group: Group, y: Floats) -> bool:
        age = self.as_of - old.calibrated_at
        grown = abs(group.n_trades - old.n_trades) / old.n_trades
        return (
            old.settings == self.settings(group.key.module, y)
            and len(old.cutoffs) == 2 * min(self.config.max_scope_dims, len(group.dims))
            and timedelta(0) <= age < timedelta(days=self.config.calibration_days)
            and grown < self.config.calibration_growth
        )

    def _calibration(self, block: Block, cut: Cutoffs) -> Calibration:
        return Calibration(
            block.group.key,
            self.as_of,
            block.group.n_trades,
            cut.by_cell,
            cut.shock.noise_variance,
            cut.shock.day_variance,
            cut.shock.day_autocorrelation,
            self.settings(block.group.key.module, block.y),
        )

    def _rng(self, key: GroupKey) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, zlib.crc32("/".join(key).encode())])


# --- what becomes of the slices ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Described:
    """The distinct slices of a search: what names them, their p-values and cut-offs by row."""

    found: GroupSearch
    table: SliceTable
    names: NDArray[np.int64]
    aliases: Mapping[int, NDArray[np.int64]]
    p_value: Floats
    cutoff: Floats

    def subset(self, row: int) -> ScopeSubset:
        dims, codes = self.table.dims[row], self.table.codes[row]
        return self.found.group.name(dims[dims >= 0].tolist(), codes[codes >= 0].tolist())

    def active_rows(self) -> dict[int, int]:
        """Naming row of each slice of the joint fit → its place there."""
        return {
            self._naming_row(find_slice(self.table, self.found.group, s)): place
            for place, s in enumerate(self.found.fit.slices)
        }

    def _naming_row(self, row: int) -> int:
        t, names = self.table, self.names
        return int(names[(t.key[names] == t.key[row]) & (t.n[names] == t.n[row])][0])


def _describe(found: GroupSearch) -> _Described:
    table = described(found.search, found.cut.shock)
    names, aliases = name_slices(table)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = 2 * stats.norm.sf(np.abs(table.delta / table.se))
    cells = 2 * (table.level - 1) + (table.evidence > 0)
    cutoff = np.array(found.cut.by_cell, dtype=float)[cells]
    names = names[~np.isnan(table.delta[names])]
    return _Described(found, table, names, aliases, p_value, cutoff)


def lessons_of(
    searched: Searched,
    module: str,
    config: LearningConfig,
    as_of: datetime,
    previous: Sequence[Lesson] = (),
) -> ModuleLearning:
    """Turn the searches of `module` into lessons with statuses, statistics and multipliers."""
    mine = searched.of(module)
    parts = [
        _judged(found, searched.events, config, as_of) for found in (*mine.groups, *mine.patterns)
    ]
    q_values = _q_values([part.p_values for part in parts])
    kept = [
        replace(lesson, stats=replace(lesson.stats, q_value=float(q[place])))
        for part, q in zip(parts, q_values, strict=True)
        for lesson, place in zip(part.lessons, part.places, strict=True)
    ]
    limits = [part.limit for part in parts if part.limit is not None]
    return ModuleLearning(
        module,
        tuple(_with_deprecated([_worn_out(x, config) for x in kept], previous, searched)),
        tuple(f.calibration for f in (*searched.groups, *searched.patterns)),
        _count_trades(searched.events, module),
        sum(len(part.p_values) for part in parts),
        sum(part.redundant for part in parts),
        min(limits, key=lambda limit: limit.edge_r, default=None),
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """What is kept of a search: of millions of slices their p-values, all else of lessons alone.

    `places` are those of the lessons among `p_values`, `redundant` counts that status before the
    list was cut.
    """

    lessons: Sequence[Lesson]
    places: Sequence[int]
    p_values: Floats
    redundant: int
    limit: DetectionLimit | None


def _judged(
    found: GroupSearch, events: EventTable, config: LearningConfig, as_of: datetime
) -> _Judged:
    d = _describe(found)
    rows, lessons, redundant = _Judge(d, events, config, as_of).lessons()
    place = np.empty(len(d.table), np.int64)
    place[d.names] = np.arange(len(d.names))
    return _Judged(
        lessons, place[rows].tolist(), d.p_value[d.names], redundant, _detection_limit(d)
    )


def _count_trades(events: EventTable, module: str) -> int:
    mine = [i for i, key in enumerate(events.groups) if key.module == module]
    return len(np.unique(events.trade[np.isin(events.group, mine)]))


def _q_values(p_values: Sequence[Floats]) -> list[Floats]:
    """Benjamini–Hochberg over all slices of the module; a p-value that is unknown counts as 1."""
    if not p_values:
        return []
    flat = np.concatenate(p_values)
    adjusted = stats.false_discovery_control(np.nan_to_num(flat, nan=1.0)) if len(flat) else flat
    return np.split(adjusted, np.cumsum([len(p) for p in p_values])[:-1])


def _detection_limit(d: _Described) -> DetectionLimit | None:
    n = d.table.n[d.names]
    others = d.found.group.n_trades - n
    noise = d.found.cut.shock.noise_variance
    needed = (d.cutoff[d.names] + _POWER_Z) * np.sqrt(noise * (1 / n + 1 / others))
    if not len(needed) or not np.isfinite(needed.min()):
        return None
    least = float(needed.min())
    # A slice and its complement need the same: the smaller one is told.
    return DetectionLimit(least, int(n[needed <= least * (1 + _ROUNDING)].min()))


@dataclass(frozen=True, slots=True)
class _Judge:
    """Gives every slice of one search its status, and the kept ones their multipliers."""

    described: _Described
    events: EventTable
    config: LearningConfig
    as_of: datetime

    def lessons(self) -> tuple[list[int], list[Lesson], int]:
        """The rows of the kept lessons, these without q, and how many were redundant in all."""
        active = self.described.active_rows()
        status, redundant = self._statuses(active)
        rows = list(status)
        outcomes = outcomes_of(self.described.found.group, self.events, self.config, self.as_of)
        known = self._active_masks(active)

        def look(k: int) -> tuple[Measured, tuple[str, ...]]:
            members = self._members(rows[k])
            is_redundant = status[rows[k]] is LessonStatus.REDUNDANT
            explained = _explained_by(members, known) if is_redundant else ()
            return self._measure(rows[k], members, outcomes), explained

        seen = in_parallel(look, len(rows))
        multipliers = multipliers_of([measured for measured, _ in seen])
        lessons = [
            self._lesson(row, status[row], m, active.get(row), explained)
            for row, m, (_, explained) in zip(rows, multipliers, seen, strict=True)
        ]
        return rows, lessons, redundant

    def _statuses(self, active: Mapping[int, int]) -> tuple[dict[int, LessonStatus], int]:
        d = self.described
        status = dict.fromkeys(active, LessonStatus.ACTIVE)
        evidence, cut = d.table.evidence[d.names], d.cutoff[d.names]
        others = d.found.group.n_trades - d.table.n[d.names]
        testable = np.isfinite(cut) & (others >= self.config.n_min)
        beyond = np.where(testable, evidence**2 - cut**2, -np.inf)
        order = np.argsort(-beyond, kind="stable")
        rows = [int(r) for r in d.names[order] if int(r) not in status]
        is_beyond = dict(zip(d.names[order].tolist(), (beyond[order] > 0).tolist(), strict=True))
        redundant = [r for r in rows if status and is_beyond[r]]
        rest = [r for r in rows if not (status and is_beyond[r])]
        for row in redundant[: self.config.max_redundant]:
            status[row] = LessonStatus.REDUNDANT
        for row in rest[: self.config.max_candidates]:
            status[row] = LessonStatus.CANDIDATE
        return status, len(redundant)

    def _members(self, row: int) -> NDArray[np.bool_]:
        return self.described.found.group.members(self.described.subset(row))

    def _active_masks(self, active: Mapping[int, int]) -> list[tuple[str, NDArray[np.bool_]]]:
        """The active lessons, each with its trades."""
        found, subsets = self.described.found, [self.described.subset(row) for row in active]
        names = [lesson_id(*_identity(found.group.key, s)) for s in subsets]
        return list(zip(names, found.search.masks(subsets), strict=True))

    def _measure(self, row: int, members: NDArray[np.bool_], outcomes: Outcomes) -> Measured:
        t = self.described.table
        return measure(
            members,
            outcomes,
            float(t.delta[row]),
            float(t.variance[row]),
            self.config.segment_n_min,
            self.config.recurrence_tau_days,
        )

    def _lesson(
        self,
        row: int,
        status: LessonStatus,
        m: Multipliers,
        place: int | None,
        explained: tuple[str, ...],
    ) -> Lesson:
        d, t, fit = self.described, self.described.table, self.described.found.fit
        group, scope_subset = _identity(d.found.group.key, d.subset(row))
        n, delta = int(t.n[row]), float(t.delta[row])
        return Lesson(
            group,
            scope_subset,
            status,
            self._stats(row, place),
            m,
            edge_raw(delta, n, (m.time, m.field, m.recurrence, m.variance)),
            None if place is None else float(fit.edge_r[place]),
            None if place is None else float(fit.se_r[place]),
            tuple(d.subset(a) for a in d.aliases.get(row, ())),
            explained,
        )

    def _stats(self, row: int, place: int | None) -> SliceStats:
        d, t = self.described, self.described.table
        delta, se = float(t.delta[row]), float(t.se[row])
        evidence, cutoff = self._decided_by(row, place)
        return SliceStats(
            n=int(t.n[row]),
            avg_rr=float(t.mean[row]),
            variance=float(t.variance[row]),
            delta_rr=delta,
            se=se,
            z=delta / se if se > 0 else math.nan,
            p_value=float(d.p_value[row]),
            q_value=math.nan,
            evidence=evidence,
            cutoff=cutoff,
        )

    def _decided_by(self, row: int, place: int | None) -> tuple[float, float]:
        """Evidence and cut-off: in the joint fit for what was kept, else of the slice alone."""
        d = self.described
        if place is None:
            return float(d.table.evidence[row]), float(d.cutoff[row])
        joint = float(d.found.fit.evidence[place])
        return joint, d.found.cut.of(d.found.fit.slices[place], joint)


def _explained_by(
    members: NDArray[np.bool_], active: Sequence[tuple[str, NDArray[np.bool_]]]
) -> tuple[str, ...]:
    """The active lessons whose trades go with those of a slice, closest first."""
    related = sorted((-abs(_correlation(members, mask)), name) for name, mask in active)
    return tuple(name for i, (r, name) in enumerate(related) if i == 0 or -r >= _RELATED)


def _correlation(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Pearson's r of two indicators, neither of them the same for all."""
    n, a, b = len(one), np.count_nonzero(one), np.count_nonzero(other)
    both = np.count_nonzero(one & other)
    return float((n * both - a * b) / math.sqrt(float(a * (n - a)) * float(b * (n - b))))


def _identity(key: GroupKey, scope_subset: ScopeSubset) -> tuple[GroupKey, ScopeSubset]:
    """A pattern among its category's others is the empty subset of its own group."""
    if key.pattern_key != ALL_PATTERNS:
        return key, scope_subset
    [(_, pattern)] = scope_subset
    return GroupKey(key.module, pattern, key.action_category), ()


def outcomes_of(
    group: Group, events: EventTable, config: LearningConfig, as_of: datetime
) -> Outcomes:
    """The trades of a group as the multipliers need them."""
    hours = events.payback_hours[group.trades]
    hours = np.where(np.isnan(hours), events.hold_hours[group.trades], hours)
    week = week_of(group.day)
    as_of_day = instant(as_of).astype(np.int64) / 86_400e6
    return Outcomes(
        events.rr[group.trades],
        hours / 24.0,
        _segments(group, config.segment_dims),
        week,
        age_of_week(week, as_of_day),
    )


def _segments(group: Group, dims: Sequence[str]) -> NDArray[np.int64]:
    """Segment of each trade by its first action; −1 where a dimension is unknown."""
    _, first = np.unique(group.row_trade, return_index=True)
    segment = np.zeros(group.n_trades, dtype=np.int64)
    for dim in dims:
        if dim not in group.dims:
            return np.full(group.n_trades, -1, dtype=np.int64)
        d = group.dims.index(dim)
        code = group.codes[d, first]
        known = (segment >= 0) & (code > 0)
        segment = np.where(known, segment * (int(group.n_values[d]) + 1) + code, -1)
    return segment


def _worn_out(lesson: Lesson, config: LearningConfig) -> Lesson:
    """The lesson, deprecated if what is left of its edge is not worth an override."""
    edge = lesson.joint_edge_r
    if lesson.status is not LessonStatus.ACTIVE or edge is None or abs(edge) >= config.min_edge_r:
        return lesson
    reason = f"worn out: {edge:+.3f} R left, under {config.min_edge_r:g} R"
    return replace(lesson, status=LessonStatus.DEPRECATED, reason=reason)


def _with_deprecated(
    lessons: Sequence[Lesson], previous: Sequence[Lesson], searched: Searched
) -> Iterator[Lesson]:
    """The lessons; those that were active before and are not now say why."""
    now = {lesson.lesson_id: lesson for lesson in lessons}
    was_active = {lesson.lesson_id: lesson for lesson in previous if lesson.status in _DECIDED}
    for key, lesson in now.items():
        if key not in was_active or lesson.status in _DECIDED:
            yield lesson
        else:
            yield replace(lesson, status=LessonStatus.DEPRECATED, reason=_why_dropped(lesson))
    for key, lesson in was_active.items():
        if key not in now:
            yield _gone(lesson, searched)


def _why_dropped(lesson: Lesson) -> str:
    if lesson.status is LessonStatus.REDUNDANT:
        return f"no longer kept: explained by {', '.join(lesson.explained_by)}"
    evidence, cutoff = lesson.stats.evidence, lesson.stats.cutoff
    return f"no longer kept: evidence {evidence:.2f} against a cut-off of {cutoff:.2f}"


def _gone(lesson: Lesson, searched: Searched) -> Lesson:
    group = group_of(searched.events, lesson.group)
    n = int(group.members(lesson.scope_subset).sum()) if group.n_trades else 0
    reason = "no trades in the look-back" if n == 0 else f"no longer kept: {n} trades left"
    return replace(
        lesson,
        status=LessonStatus.DEPRECATED,
        stats=replace(lesson.stats, n=n),
        joint_edge_r=None,
        joint_se_r=None,
        reason=reason,
    )
