"""Latent factors: lessons that mean much the same trades, and how their edge is shared.

Overlap of two lessons of one module and category = Jaccard index of their sets of trades;
average-linkage clustering (Sokal & Michener 1958), cut so that an overlap of 0.6 still joins. As
two clusters that join have a pair that overlaps at least that much, each connected component of
such pairs is clustered by itself. Which lessons are active is decided in `core.learn`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from learning_assets.core.events import EventTable
from learning_assets.core.membership import group_trades, trades_of
from learning_assets.core.overlap import common_counts, jaccard, pairs_at_least
from learning_assets.core.records import Lesson, LessonStatus

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SAME_CAUSE = 0.6
"""Lessons whose trades overlap by this much (Jaccard index) have one cause."""

MOST_IN_MATRIX = 100
"""The correlation matrix of a factor has its first members, at most this many."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Factor:
    """Lessons of one module and category that mean much the same trades; one or more.

    `representative` (a lesson id) is the strongest active member, the strongest where none is
    active. `members` are lesson ids with their overlap (0–1) with it, the representative first,
    then by overlap. `matrix` holds the correlations of membership over the category's trades
    (phi coefficients) of the first hundred members, in that order.
    """

    factor_id: str
    module: str
    action_category: str
    pattern_keys: tuple[str, ...]
    representative: str
    members: tuple[tuple[str, float], ...]
    matrix: tuple[tuple[float, ...], ...]

    @property
    def member_ids(self) -> frozenset[str]:
        """The lesson ids of its members."""
        return frozenset(name for name, _ in self.members)


def latent_factors(
    events: EventTable,
    lessons: Sequence[Lesson],
    *,
    previous: Sequence[Factor] = (),
    known: Sequence[Lesson] = (),
) -> tuple[Factor, ...]:
    """The factors of the lessons, each lesson with trades in exactly one.

    `events` are those of the look-back, `lessons` the significant ones (each once). A factor
    keeps the id of the one of `previous` most of whose members it still has. `known` are lessons
    of earlier times: a member that is no longer among `lessons` still counts where its trades
    overlap those of the new representative. Ordered by id.
    """
    drafts = []
    for module, category in sorted({(k.module, k.action_category) for k in events.groups}):
        mine = [
            x for x in lessons if (x.group.module, x.group.action_category) == (module, category)
        ]
        drafts += list(_drafts(events, mine))
    drafts.sort(key=lambda draft: (-len(draft.lessons), draft.lessons[0].lesson_id))
    kept = _kept_ids(previous, _heirs(events, drafts, previous, known))
    ids = _all_ids(drafts, kept, {f.factor_id: f.representative for f in previous})
    return tuple(sorted((d.factor(i) for d, i in zip(drafts, ids, strict=True)), key=_by_id))


def _by_id(factor: Factor) -> str:
    return factor.factor_id


# --- clustering ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Draft:
    """A factor without its id: lessons in the order of the members, and their trades."""

    lessons: tuple[Lesson, ...]
    trades: tuple[Ints, ...]
    n_trades: int

    @property
    def representative(self) -> Lesson:
        return self.lessons[0]

    def factor(self, factor_id: str) -> Factor:
        first, *others = self.trades
        overlaps = [1.0, *(_overlap(first, other) for other in others)]
        key = self.representative.group
        return Factor(
            factor_id,
            key.module,
            key.action_category,
            tuple(sorted({lesson.group.pattern_key for lesson in self.lessons})),
            self.representative.lesson_id,
            tuple((x.lesson_id, o) for x, o in zip(self.lessons, overlaps, strict=True)),
            _correlations(self.trades[:MOST_IN_MATRIX], self.n_trades),
        )


def _drafts(events: EventTable, lessons: Sequence[Lesson]) -> Iterator[_Draft]:
    """The clusters of the lessons of one module and category."""
    trades = trades_of(events, lessons)
    with_trades = [i for i, members in enumerate(trades) if len(members)]
    if not with_trades:
        return
    first = lessons[0].group
    keys = [
        k
        for k in events.groups
        if (k.module, k.action_category) == (first.module, first.action_category)
    ]
    universe = group_trades(events, keys)
    places = [np.searchsorted(universe, trades[i]) for i in with_trades]
    for cluster in clusters_of(places, len(universe)):
        members = [with_trades[i] for i in cluster]
        yield _draft([lessons[i] for i in members], [trades[i] for i in members], len(universe))


def _draft(lessons: Sequence[Lesson], sets: Sequence[Ints], n_trades: int) -> _Draft:
    best = min(range(len(lessons)), key=lambda i: strength_order(lessons[i]))
    rest = [i for i in range(len(lessons)) if i != best]
    rest.sort(key=lambda i: (-_overlap(sets[best], sets[i]), lessons[i].lesson_id))
    order = [best, *rest]
    return _Draft(tuple(lessons[i] for i in order), tuple(sets[i] for i in order), n_trades)


def strength_order(lesson: Lesson) -> tuple[bool, float, int, str]:
    """Sorts lessons: active first, then by the strength of the evidence, then simpler scopes."""
    evidence = abs(np.nan_to_num(lesson.stats.evidence))
    is_active = lesson.status is LessonStatus.ACTIVE
    return not is_active, -float(evidence), len(lesson.scope_subset), lesson.lesson_id


def clusters_of(sets: Sequence[Ints], n: int) -> list[list[int]]:
    """Average-linkage clusters of sets of indices under `n` (none empty), cut at 0.6.

    Lists of positions, ascending, ordered by their first.
    """
    i, j, _ = pairs_at_least(sets, n, SAME_CAUSE - _ROUNDING)
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(len(sets), len(sets)))
    _, component = connected_components(graph, directed=False)
    order = np.argsort(component, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(component[order])) + 1)
    found = [cluster for part in parts if len(part) for cluster in _cut(part, sets)]
    return sorted(found)


def _cut(part: Ints, sets: Sequence[Ints]) -> Iterator[list[int]]:
    if len(part) < 2:
        yield part.tolist()
        return
    distance = 1.0 - jaccard(common_counts([sets[i] for i in part]))
    tree = linkage(squareform(distance, checks=False), method="average")
    label = fcluster(tree, 1.0 - SAME_CAUSE + _ROUNDING, criterion="distance")
    for k in np.unique(label):
        yield part[label == k].tolist()


def _overlap(a: Ints, b: Ints) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(len(a) + len(b) - common, 1)


def _correlations(sets: Sequence[Ints], n_trades: int) -> tuple[tuple[float, ...], ...]:
    """Phi coefficients of membership; 0 with a set that holds every trade, 1 on the diagonal."""
    if len(sets) == 1:
        return ((1.0,),)
    common = common_counts(sets)
    size = np.diag(common).astype(float)
    spread = np.sqrt(size * (n_trades - size))
    scale = np.outer(spread, spread)
    phi: Floats = np.divide(
        n_trades * common - np.outer(size, size),
        scale,
        out=np.zeros(common.shape),
        where=scale > 0,
    )
    np.fill_diagonal(phi, 1.0)
    return tuple(tuple(row) for row in phi.tolist())


# --- ids -------------------------------------------------------------------------------------


def _heirs(
    events: EventTable,
    drafts: Sequence[_Draft],
    previous: Sequence[Factor],
    known: Sequence[Lesson],
) -> dict[str, int]:
    """Lesson id → the draft that it is in, or would be in if it still were a lesson."""
    heirs = {x.lesson_id: i for i, draft in enumerate(drafts) for x in draft.lessons}
    wanted = {name for factor in previous for name in factor.member_ids} - heirs.keys()
    gone = [lesson for lesson in known if lesson.lesson_id in wanted]
    for lesson, trades in zip(gone, trades_of(events, gone), strict=True):
        overlaps = [_overlap_with(draft, lesson, trades) for draft in drafts]
        best = int(np.argmax(overlaps)) if overlaps else 0
        if overlaps and overlaps[best] >= SAME_CAUSE - _ROUNDING:
            heirs[lesson.lesson_id] = best
    return heirs


def _overlap_with(draft: _Draft, lesson: Lesson, trades: Ints) -> float:
    """Overlap with the representative; 0 where it cannot reach 0.6, or of another category."""
    key, other = lesson.group, draft.representative.group
    sizes = sorted((len(trades), len(draft.trades[0])))
    comparable = (key.module, key.action_category) == (other.module, other.action_category)
    if not comparable or sizes[0] < (SAME_CAUSE - _ROUNDING) * sizes[1]:
        return 0.0
    return _overlap(draft.trades[0], trades)


def _kept_ids(previous: Sequence[Factor], heirs: Mapping[str, int]) -> dict[int, str]:
    """Draft → id of the previous factor that it continues: the largest inheritance first."""
    claims = []
    for factor in previous:
        inherited = Counter(heirs[name] for name in factor.member_ids & heirs.keys())
        for i, count in inherited.items():
            is_heir = heirs.get(factor.representative) == i
            if 2 * count + is_heir > len(factor.members):
                claims.append((-count, not is_heir, factor.factor_id, i))
    return _first_come(sorted(claims))


def _first_come(claims: Sequence[tuple[int, bool, str, int]]) -> dict[int, str]:
    kept: dict[int, str] = {}
    taken: set[str] = set()
    for *_, factor_id, i in claims:
        if i not in kept and factor_id not in taken:
            kept[i] = factor_id
            taken.add(factor_id)
    return kept


def _all_ids(
    drafts: Sequence[_Draft], kept: Mapping[int, str], earlier: Mapping[str, str]
) -> list[str]:
    """Kept ids, and new ones for the rest: an `earlier` id only for its own representative."""
    used = set(kept.values())
    ids = []
    for i, draft in enumerate(drafts):
        own = draft.representative.lesson_id
        free = (n for n in _names(draft.representative) if n not in used)
        name = kept.get(i) or next(n for n in free if earlier.get(n, own) == own)
        used.add(name)
        ids.append(name)
    return ids


def _names(lesson: Lesson) -> Iterator[str]:
    """Readable ids for the factor of a representative, each longer than the one before."""
    _, *pattern = lesson.group.pattern_key.split(".")
    words = [_word(dim, value) for dim, value in lesson.scope_subset] or ["all"]
    short = [*words, *pattern[:2]]
    yield _identifier(short)
    yield _identifier([*words, *pattern])
    full = _identifier([*words, *pattern, lesson.group.action_category])
    yield full
    k = 2
    while True:
        yield f"{full}_{k}"
        k += 1


_SAYS_LITTLE = re.compile(r"[sS]?\d+|true|false")


def _word(dim: str, value: str) -> str:
    """The value, with its dimension where it would say nothing by itself."""
    return f"{dim}_{value}" if _SAYS_LITTLE.fullmatch(value) else value


def _identifier(words: Sequence[str]) -> str:
    text = "_".join(words).lower().replace("<", "under_").replace(">", "over_")
    return "lf_" + re.sub(r"[^0-9a-z]+", "_", text).strip("_")


# --- use -------------------------------------------------------------------------------------


def share_divisors(
    events: EventTable, lessons: Sequence[Lesson], factors: Sequence[Factor]
) -> dict[str, float]:
    """What the edge of each active lesson is divided by (≥ 1), by lesson id.

    The mean number of the factor's patterns, with an active member, that one trade meets, over
    the trades that meet any (in `events`, those of the look-back): 1 for a factor of one
    pattern. Lessons of one pattern count once between them: the joint fit has shared their
    trades out already, and merging them would delete true effects.
    """
    by_id = {x.lesson_id: x for x in lessons if x.status is LessonStatus.ACTIVE}
    divisors = dict.fromkeys(by_id, 1.0)
    for factor in factors:
        members = [by_id[name] for name in sorted(factor.member_ids & by_id.keys())]
        if len({x.group for x in members}) > 1:
            divisors |= dict.fromkeys((x.lesson_id for x in members), _met(events, members))
    return divisors


def _met(events: EventTable, members: Sequence[Lesson]) -> float:
    """Mean number of patterns of the members among those that one trade meets."""
    met = np.zeros(events.n_trades)
    trades = trades_of(events, members)
    for key in {x.group for x in members}:
        own = [t for x, t in zip(members, trades, strict=True) if x.group == key]
        met[np.unique(np.concatenate(own))] += 1
    return float(met[met > 0].mean()) if met.any() else 1.0
