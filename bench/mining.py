"""How long mining takes, against peers and against the memory: trades × dimensions × depth.

Four things enumerate the same slices, side by side in one run, each in a process of its own:
- ours: `core.mining.describe`, every statistic with its day-clustered error and the evidence
- naive: the same in plain pandas (`mining_twin`); where that would take minutes, on a fixed
  sample of its subtrees, scaled by the number of slices (`naive_scaled`); whole in `--full`
- pysubgroup: the number of trades and the mean; pyfim: the number of trades alone (`mining_peers`)

Ours uses all processors, the others know one. A ratio is the other's median time ÷ ours, absent
where it was not measured. Making the data, what each needs of it, and compiling are not timed.
`peak_mib` is of the whole process, of which the libraries alone take `imports_mib`. `least_mib`
is what must be read at the least: for every subset that the descent goes through, the empty one
included, its trades' codes in each later dimension, one byte each. At the measured bandwidth that
takes `least_seconds`, and `times_least` is how far from this limit we are.

Every run first checks that ours and naive agree (n and sets of trades exactly, the rest to
1e-9), and that the peers count the same trades in the same slices; if not, it ends with 1.
The passes are `core.lattice.strongest` for one column and `core.calibration.slice_cutoffs`, the
lattice included.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numba
import numpy as np
from mining_data import GROUP, Shape, events_of
from mining_peers import is_installed, ways_of
from mining_twin import Found, Naive, naive_of, sampled_roots, slices, slices_from
from numpy.typing import NDArray
from side_by_side import Measured, Seen, Thing, bandwidth_gib, idle, measure, processor, reading

from learning_assets.core.calibration import slice_cutoffs
from learning_assets.core.config import LearningConfig
from learning_assets.core.dayshock import DayShock, fit_day_shock
from learning_assets.core.events import EventTable
from learning_assets.core.lattice import Beside, Weighted, lattice_of, strongest
from learning_assets.core.mining import Group, SliceTable, describe, group_of
from learning_assets.core.scope import ScopeSubset

Floats = NDArray[np.float64]

CONFIG = LearningConfig()
N_MIN = CONFIG.n_min
PEERS = ("pysubgroup", "pyfim")
REPEATS = 5
OFTEN, FEW_TRADES = 15, 20_000
"""Ours and pyfim run so often up to so many trades: the first runs of a process are slower, one in
a few waits for Python's garbage collection, and the machine changes its pace."""
SAMPLED = 400
"""Slices in the sample of the naive twin."""
TOLERANCE = 1e-9
THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
_SEED = 20260105
_BANDWIDTH_REPEATS = 7
_LEAST_TRADES = 400
STATISTICS = ("mean", "variance", "delta", "se", "evidence")


@dataclass(frozen=True, slots=True)
class Case:
    """One row: how much of what, and who is measured how often.

    `others` of naive, naive_whole, pysubgroup and pyfim, `repeats` times each, but see `times`;
    `naive` is on a sample.
    """

    trades: int
    actions: int = 1
    dims: int = 28
    depth: int = 3
    others: tuple[str, ...] = ()
    repeats: int = REPEATS

    @property
    def shape(self) -> Shape:
        """The trades to make."""
        return Shape(self.trades, self.actions, self.dims)

    def times(self, name: str) -> int:
        """How often one of them runs."""
        if name in ("ours", "pyfim") and self.trades <= FEW_TRADES:
            return OFTEN
        return REPEATS if name == "ours" else self.repeats


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of the search: `strongest` or `calibration`."""

    name: str
    trades: int
    actions: int = 1
    repeats: int = REPEATS

    @property
    def case(self) -> Case:
        """The same trades, described."""
        return Case(self.trades, self.actions)


CASES = (
    Case(1_000, dims=6, others=("naive_whole", *PEERS)),
    Case(1_000, actions=3, dims=6, others=("naive_whole",)),
    Case(1_000, others=("naive", *PEERS)),
    Case(5_000, depth=2, others=("naive", *PEERS)),
    Case(5_000, others=("naive", *PEERS)),
    Case(5_000, actions=3, others=("naive",)),
    Case(10_000, others=("pyfim",)),
    Case(10_000, actions=3),
    Case(20_000, others=("pyfim",)),
    Case(100_000),
    Case(100_000, actions=3),
)
FULL_CASES = (
    Case(5_000, others=("naive_whole",), repeats=1),
    Case(10_000, others=("naive", "pysubgroup")),
    Case(100_000, others=("naive", "pyfim")),
    Case(1_000_000, others=("pyfim",)),
    Case(1_000_000, actions=3),
)
PASSES = tuple(Pass(name, 20_000) for name in ("strongest", "calibration"))
FULL_PASSES = tuple(
    Pass(name, 1_000_000, actions, repeats)
    for name, repeats in (("strongest", REPEATS), ("calibration", 1))  # minutes each
    for actions in (1, 3)
)


# --- what is measured ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """The trades of a case, as the engine takes them."""

    events: EventTable
    group: Group
    shock: DayShock
    depth: int

    @classmethod
    def of(cls, case: Case) -> Problem:
        """Make the trades of a case."""
        events = events_of(case.shape)
        return cls(
            events, group_of(events, GROUP), fit_day_shock(events.rr, events.day), case.depth
        )

    def describe(self) -> SliceTable:
        """All slices, by the engine."""
        rr = self.events.rr
        return describe(self.group, rr, rr, self.shock, N_MIN, self.depth)

    def strongest(self) -> None:
        """The strongest slices, by the engine."""
        residual = self.events.rr - self.events.rr.mean()
        strongest(self.group, residual[:, None], self.shock, N_MIN, self.depth)

    def calibration(self) -> None:
        """The cut-offs, with the default number of rotations."""
        residual = self.events.rr - self.events.rr.mean()
        lattice = lattice_of(self.group, residual, self.shock, N_MIN, self.depth)
        weighted = Weighted.of(lattice, self.shock)
        slice_cutoffs(
            weighted,
            residual,
            Beside.nothing(weighted),
            rotated=CONFIG.rotations,
            tail=CONFIG.family_wise_error,
            rng=np.random.default_rng(_SEED),
        )

    def naive(self) -> Naive:
        """The same trades as frames."""
        return naive_of(self.events, self.shock, N_MIN, self.depth)


def few_of(case: Case) -> Case:
    """A case of the same kind that takes no time: for compiling."""
    return Case(_LEAST_TRADES, case.actions, case.dims, case.depth)


def ours(case: Case) -> Thing:
    """The engine, compiled."""
    Problem.of(few_of(case)).describe()
    problem = Problem.of(case)
    return Thing("describe", problem.describe, partial(_seen, problem))


def _seen(problem: Problem, table: SliceTable) -> Seen:
    return Seen(len(table), least_bytes(table, problem.group))


def least_bytes(table: SliceTable, group: Group) -> int:
    """What must be read at the least (see the head of the module).

    The trades of a subset are counted, not its actions: a bound for several actions each.
    """
    n_dims, depth = len(group.dims), table.dims.shape[1]
    width = 1 if group.n_values.max() < 256 else 2
    goes_on = table.level < depth
    later = n_dims - 1 - table.dims[goes_on].max(axis=1).astype(np.int64)
    return width * (group.n_trades * n_dims + int(table.n[goes_on].astype(np.int64) @ later))


def naive(case: Case) -> Thing:
    """The naive twin on a fixed sample of its subtrees."""
    problem = Problem.of(case).naive()
    roots = sampled_roots(problem, SAMPLED, _SEED)
    run = partial(_first, problem, roots, SAMPLED)
    _first(problem, roots, 1)  # pandas imports on first use
    return Thing("pandas, sampled", run, _counted)


def _first(problem: Naive, roots: Sequence[ScopeSubset], count: int) -> list[Found]:
    return list(islice(slices_from(problem, roots), count))


def naive_whole(case: Case) -> Thing:
    """The naive twin on everything."""
    problem = Problem.of(case).naive()
    _first(problem, sampled_roots(problem, 1, _SEED), 1)
    return Thing("pandas", lambda: list(slices(problem)), _counted)


def _counted(found: Sequence[object]) -> Seen:
    return Seen(len(found))


def peer(name: str, case: Case) -> Thing:
    """A peer by its fastest algorithm on this case."""
    ways = ways_of(name, events_of(case.shape), N_MIN, case.depth)
    taken = [_seconds_of(way.run) for way in ways]
    best = ways[int(np.argmin(taken))]
    return Thing(best.name, best.run, lambda result: Seen(best.count(result)))


def _seconds_of(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def one_pass(name: str, case: Case) -> Thing:
    """A pass of the search, compiled."""
    getattr(Problem.of(few_of(case)), name)()
    return Thing(name, getattr(Problem.of(case), name))


MAKERS: Mapping[str, Callable[[Case], Thing]] = {
    "ours": ours,
    "naive": naive,
    "naive_whole": naive_whole,
    **{name: partial(peer, name) for name in PEERS},
}


# --- rows ------------------------------------------------------------------------------------


def row_of(case: Case, gib_per_second: float) -> dict[str, Any]:
    """The figures of a case; who is not installed is not in it."""
    names = ["ours", *(n for n in case.others if n not in PEERS or is_installed(n))]
    found = measure({name: (partial(MAKERS[name], case), case.times(name)) for name in names})
    mine = found["ours"]
    least_seconds = mine.seen.least_bytes / 2**30 / gib_per_second
    row = {
        "trades": case.trades,
        "actions": case.actions,
        "dims": case.dims,
        "depth": case.depth,
        "slices": mine.seen.slices,
        "seconds": mine.seconds,
        "peak_mib": mine.peak_mib,
        "repeats": len(mine.all_seconds),
        "least_mib": mine.seen.least_bytes / 2**20,
        "least_seconds": least_seconds,
        "times_least": mine.seconds / least_seconds,
    }
    for name in names[1:]:
        row |= _beside(name, found[name], mine)
    return row


def _beside(name: str, other: Measured, mine: Measured) -> dict[str, Any]:
    """The figures of another than us."""
    scaled, plain = name == "naive", name.removesuffix("_whole")
    factor = mine.seen.slices / other.seen.slices if scaled else 1.0
    figures = {
        f"seconds_{plain}": other.seconds * factor,
        f"ratio_{plain}": other.seconds * factor / mine.seconds,
        f"peak_mib_{plain}": other.peak_mib,
        f"repeats_{plain}": len(other.all_seconds),
    }
    if plain == "naive":
        return {**figures, "naive_scaled": scaled, "naive_slices": other.seen.slices}
    return {**figures, f"algorithm_{name}": other.algorithm, f"slices_{name}": other.seen.slices}


def pass_of(wanted: Pass) -> dict[str, Any]:
    """The figures of a pass."""
    make = partial(one_pass, wanted.name, wanted.case)
    found = measure({wanted.name: (make, wanted.repeats)})[wanted.name]
    return {
        "pass": wanted.name,
        "trades": wanted.trades,
        "actions": wanted.actions,
        "columns": 1 if wanted.name == "strongest" else CONFIG.rotations,
        "seconds": found.seconds,
        "peak_mib": found.peak_mib,
        "repeats": wanted.repeats,
    }


# --- do they agree? --------------------------------------------------------------------------


def differences(case: Case) -> list[str]:
    """In what naive and the peers that are there differ from us on a small case."""
    problem = Problem.of(case)
    table = problem.describe()
    return [*_from_naive(problem, table), *_from_peers(problem, table)]


def _from_peers(problem: Problem, table: SliceTable) -> Iterator[str]:
    if problem.group.has_repeats:
        return  # they count actions
    mine = dict(zip(names_of(problem.group, table), table.n.tolist(), strict=True))
    for name in filter(is_installed, PEERS):
        for way in ways_of(name, problem.events, N_MIN, problem.depth):
            if way.read(way.run()) != mine:
                yield f"{name} ({way.name}) counts other slices than ours"


def names_of(group: Group, table: SliceTable) -> list[ScopeSubset]:
    """The subset of every row."""
    return [
        group.name(dims[dims >= 0].tolist(), codes[codes >= 0].tolist())
        for dims, codes in zip(table.dims, table.codes, strict=True)
    ]


def _from_naive(problem: Problem, table: SliceTable) -> Iterator[str]:
    twin = {one.scope_subset: one for one in slices(problem.naive())}
    names = names_of(problem.group, table)
    if set(names) != twin.keys():
        yield f"naive has {len(twin)} slices, ours has {len(table)}"
        return
    others = [twin[name] for name in names]
    if [one.n for one in others] != table.n.tolist():
        yield "n differs from naive"
    for column in STATISTICS:
        theirs = np.array([getattr(one, column) for one in others])
        if not np.allclose(getattr(table, column), theirs, TOLERANCE, TOLERANCE, equal_nan=True):
            yield f"{column} differs from naive"
    ours_of = list(zip(table.key.tolist(), table.n.tolist(), strict=True))
    both = {(mine, one.trades) for mine, one in zip(ours_of, others, strict=True)}
    if not len(both) == len(set(ours_of)) == len({one.trades for one in others}):
        yield "the same trades are not the same slice"


def disagreements(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows in which a peer found another number of slices than we did."""
    return [
        f"{row['trades']} trades, {row['dims']} dimensions, depth {row['depth']}: {name} found "
        f"{row[f'slices_{name}']} slices, ours {row['slices']}"
        for row in rows
        for name in PEERS
        if row.get(f"slices_{name}", row["slices"]) != row["slices"]
    ]


# --- the document ----------------------------------------------------------------------------


def document_of(cases: Sequence[Case], passes: Sequence[Pass]) -> dict[str, Any]:
    """Measure everything; rows are announced on stderr as they come."""
    from honesty import measured_on  # the children, which import this module, do not need it

    from_memory = measure(
        {"idle": (idle, 1), "reading": (partial(reading, THREADS), _BANDWIDTH_REPEATS)}
    )
    gib_per_second = bandwidth_gib(from_memory["reading"])
    return {
        **measured_on(),
        "processor": processor(),
        "threads": THREADS,
        "bandwidth_gib_per_second": gib_per_second,
        "imports_mib": from_memory["idle"].peak_mib,
        "n_min": N_MIN,
        "rows": [_told(row_of(case, gib_per_second)) for case in cases],
        "passes": [_told(pass_of(wanted)) for wanted in passes],
    }


def _told(row: dict[str, Any]) -> dict[str, Any]:
    print(line_of(row), file=sys.stderr, flush=True)
    return row


def line_of(row: Mapping[str, Any]) -> str:
    """A row or pass in one line."""
    what = row.get("pass", f"{row.get('dims')} dimensions, depth {row.get('depth')}")
    head = f"{row['trades']:,} trades × {row['actions']}, {what}: {row['seconds']:.4g} s"
    parts = [head, f"{row['peak_mib']:.0f} MiB"]
    if "slices" in row:
        parts += [f"{row['slices']:,} slices", f"{row['times_least']:.0f} × the limit"]
    for name in ("naive", *PEERS):
        if f"ratio_{name}" in row:
            how = " scaled" if name == "naive" and row["naive_scaled"] else ""
            parts.append(f"{name}{how} × {row[f'ratio_{name}']:.3g}")
    return ", ".join(parts)


def main() -> int:
    """Check, measure, and print a table or one JSON document; 1 where results differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="and a million trades")
    parser.add_argument(
        "--only", type=int, nargs="+", metavar="N", help="rows and passes of so many trades alone"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw time against trades")
    args = parser.parse_args()
    for name in PEERS:
        if not is_installed(name):
            print(f"{name} is not installed, its ratios are left out: make peers", file=sys.stderr)
    few = [Case(_LEAST_TRADES, dims=8), Case(_LEAST_TRADES, actions=3, dims=8)]
    wrong = [text for case in few for text in differences(case)]
    cases = [*CASES, *(FULL_CASES if args.full else ())]
    passes = [*PASSES, *(FULL_PASSES if args.full else ())]
    if args.only:
        cases = [case for case in cases if case.trades in args.only]
        passes = [wanted for wanted in passes if wanted.trades in args.only]
    document = document_of(cases, passes) if not wrong else {"rows": [], "passes": []}
    wrong += disagreements(document["rows"])
    document["wrong"] = wrong
    rows = [*document["rows"], *document["passes"]]
    print(json.dumps(document, indent=2) if args.json else "\n".join(map(line_of, rows)))
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    if args.chart and not wrong:
        from mining_chart import draw  # likewise

        draw(document, args.chart)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
