"""Other ways to learn from the same trades, which ours is measured against.

The replaced system's formulas (from their published description), gradient-boosted trees on the
scope (Friedman 2001; histograms as in Ke et al. 2017) and a lasso on the significant slices
(Tibshirani 1996). Each learns from one group and predicts the edge of other trades of it, in R.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import lasso_path
from sklearn.model_selection import KFold

from learning_assets.core.combine import BOUNDS
from learning_assets.core.config import LearningConfig
from learning_assets.core.dayshock import fit_day_shock
from learning_assets.core.mining import Group, SliceTable, describe, name_slices

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

N_MIN, DEPTH = 33, 3
LEAST_EDGE = 0.05
MULTIPLIER_BOUNDS = BOUNDS["pm"]
GAIN = LearningConfig().prior_gain
FOLDS = 5
LASSO_P, LASSO_SLICES, LASSO_PENALTIES = 0.01, 2000, 20
SMALLEST_PENALTY, LASSO_TOLERANCE = 0.05, 1e-3
TREE_ROUNDS = 150
TREE_GRID = (
    {"learning_rate": 0.05, "max_depth": 3, "min_samples_leaf": 33, "l2_regularization": 1.0},
    {"learning_rate": 0.05, "max_depth": 3, "min_samples_leaf": 100, "l2_regularization": 10.0},
    {"learning_rate": 0.05, "max_leaf_nodes": 12, "min_samples_leaf": 33, "l2_regularization": 1.0},
    {"learning_rate": 0.1, "max_depth": 2, "min_samples_leaf": 33, "l2_regularization": 1.0},
)


@dataclass(frozen=True, slots=True)
class Learned:
    """What a peer makes of other trades: predicted edge (R) and size of each.

    `slices` are the rows of its slice table that it acts on, `edge` what it says of each (only
    the sign matters); both are empty for a peer without slices.
    """

    prediction: Floats
    sizes: Floats
    slices: Ints
    edge: Floats


def without_slices(prediction: Floats) -> Learned:
    """What a peer without slices says."""
    return Learned(prediction, sizes_of(prediction), np.empty(0, np.int64), np.empty(0))


def sizes_of(prediction: Floats) -> Floats:
    """Sizes as ours makes them of a predicted edge: the same gain, the same bounds."""
    sizes: Floats = np.clip(1.0 + GAIN * prediction, *MULTIPLIER_BOUNDS)
    return sizes


@dataclass(frozen=True, slots=True)
class Slices:
    """All slices of the trades to learn from, with what they earned."""

    group: Group
    rr: Floats
    table: SliceTable

    @property
    def distinct(self) -> NDArray[np.int64]:
        """Rows of the table with different sets of trades, the simplest name of each."""
        return name_slices(self.table)[0]


def slices_of(group: Group, rr: Floats) -> Slices:
    """Every slice of up to three dimensions with at least 33 trades."""
    return Slices(group, rr, _described(group, rr))


def _described(group: Group, y: Floats) -> SliceTable:
    return describe(group, y, y, fit_day_shock(y, group.day), N_MIN, DEPTH)


def true_edges(slices: Slices, true_r: Floats) -> Floats:
    """True edge (R) of every row of the table: mean inside minus mean of the complement."""
    return _described(slices.group, true_r).delta


# --- the replaced system ---------------------------------------------------------------------


def replaced_edge(n: NDArray[np.int32], avg_rr: Floats, variance: Floats, mean_rr: float) -> Floats:
    """Δrr · reliability · (support + magnitude + 1 + stability), as the description has it."""
    reliability = 1.0 / (1.0 + variance + 0.25 / n)
    support = -np.expm1(-n / 50.0)
    stability = 1.0 / (1.0 + variance)
    edge: Floats = (avg_rr - mean_rr) * reliability * (support + expit(avg_rr) + 1.0 + stability)
    return edge


def replaced(slices: Slices, test: Group) -> Learned:
    """Multipliers clip(1 + edge) of all slices with |edge| ≥ 0.05; matching ones are multiplied.

    The product runs over thousands of slices that overlap. Its logarithm is the prediction, which
    ranks trades as the product does without its few huge values; sizes are the product within
    the bounds of a single multiplier. Both are the kinder choice.
    """
    t = slices.table
    edge = replaced_edge(t.n, t.mean, t.variance, float(slices.rr.mean()))
    kept = np.flatnonzero(np.abs(edge) >= LEAST_EDGE)
    log_multiplier = np.log(np.clip(1.0 + edge[kept], *MULTIPLIER_BOUNDS))
    total = summed(t.take(kept), log_multiplier, test)
    limits = np.log(MULTIPLIER_BOUNDS)
    return Learned(total, np.exp(np.clip(total, *limits)), kept, edge[kept])


def summed(table: SliceTable, weight: Floats, group: Group) -> Floats:
    """Sum of the weights of the slices that match, per trade of a group of one action each."""
    total = np.zeros(group.n_trades)
    width = int(group.n_values.max()) + 2
    combinations, which = np.unique(table.dims, axis=0, return_inverse=True)
    powers = width ** np.arange(table.dims.shape[1])
    order = np.argsort(which.reshape(-1), kind="stable")
    starts = np.searchsorted(which.reshape(-1)[order], np.arange(len(combinations) + 1))
    for k, dims in enumerate(combinations):
        rows = order[starts[k] : starts[k + 1]]
        used = dims >= 0
        sums = np.zeros(width ** int(used.sum()))
        np.add.at(sums, table.codes[rows][:, used] @ powers[: used.sum()], weight[rows])
        total += sums[powers[: used.sum()] @ group.codes[dims[used]]]
    return total


# --- gradient-boosted trees ------------------------------------------------------------------


def trees(slices: Slices, test: Group) -> Learned:
    """Edge by boosted trees; settings and rounds by cross-validation over blocks of time."""
    X, y = slices.group.codes.T, slices.rr - slices.rr.mean()
    losses = [_tree_losses(X, y, settings) for settings in TREE_GRID]
    best = min(range(len(losses)), key=lambda k: losses[k].min())
    rounds = int(losses[best].argmin())
    if rounds == 0:
        return without_slices(np.zeros(test.n_trades))
    prediction = _trees(TREE_GRID[best], rounds, X.shape[1]).fit(X, y).predict(test.codes.T)
    return without_slices(prediction)


def _trees(settings: dict[str, Any], rounds: int, n_dims: int) -> Any:
    return HistGradientBoostingRegressor(
        **settings,
        max_iter=rounds,
        early_stopping=False,
        categorical_features=list(range(n_dims)),
        random_state=0,
    )


def _tree_losses(X: NDArray[np.integer[Any]], y: Floats, settings: dict[str, Any]) -> Floats:
    """Squared error out of fold after 0, 1, … rounds."""
    losses = np.zeros(TREE_ROUNDS + 1)
    for inside, outside in KFold(FOLDS).split(X):
        losses[0] += np.square(y[outside]).sum()
        model = _trees(settings, TREE_ROUNDS, X.shape[1]).fit(X[inside], y[inside])
        staged: Iterator[Floats] = model.staged_predict(X[outside])
        losses[1:] += [float(np.square(y[outside] - p).sum()) for p in staged]
    return losses


# --- lasso -----------------------------------------------------------------------------------


def lasso(slices: Slices, test: Group) -> Learned:
    """Lasso on the slices with a day-clustered p < 0.01, at most the strongest 2,000.

    The penalty is chosen by cross-validation over blocks of time. Each fold screens the slices
    anew: screening on all trades first would make every penalty look too large.
    """
    rows = screened(slices)
    if not len(rows):
        return without_slices(np.zeros(test.n_trades))
    X, y = indicators(slices, rows, slices.group), slices.rr - slices.rr.mean()
    strongest = float(np.abs((X - X.mean(axis=0)).T @ y).max()) / len(y)
    penalties = strongest * np.geomspace(1.0, SMALLEST_PENALTY, LASSO_PENALTIES)
    losses = sum(_lasso_losses(slices, penalties, *fold) for fold in KFold(FOLDS).split(y))
    last = int(np.argmin(losses)) + 1
    coefficients = _path(X, y, penalties[:last])[:, -1]
    kept = coefficients != 0
    prediction = summed(slices.table.take(rows[kept]), coefficients[kept], test)
    return Learned(prediction, sizes_of(prediction), rows[kept], coefficients[kept])


def screened(slices: Slices) -> Ints:
    """Rows of the strongest distinct slices by day-clustered z."""
    t, rows = slices.table, slices.distinct
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.nan_to_num(np.abs(t.delta[rows] / t.se[rows]), posinf=0.0)
    strongest = np.argsort(-z, kind="stable")[:LASSO_SLICES]
    found: Ints = rows[strongest[z[strongest] > stats.norm.isf(LASSO_P / 2)]]
    return found


def _lasso_losses(slices: Slices, penalties: Floats, inside: Ints, outside: Ints) -> Floats:
    """Squared error out of fold under each penalty."""
    part = slices_of(part_of(slices.group, inside), slices.rr[inside])
    rows = screened(part)
    mean = part.rr.mean()
    errors = (slices.rr[outside] - mean)[:, None] - np.zeros(len(penalties))
    if len(rows):
        X = indicators(part, rows, part.group)
        new = indicators(part, rows, part_of(slices.group, outside)) - X.mean(axis=0)
        errors -= new @ _path(X, part.rr - mean, penalties)
    losses: Floats = np.square(errors).sum(axis=0)
    return losses


def _path(X: Floats, y: Floats, penalties: Floats) -> Floats:
    """Coefficients (columns × penalties) of the lasso with an intercept, penalties descending."""
    centred = np.asfortranarray(X - X.mean(axis=0))
    _, coefficients, _ = lasso_path(centred, y, alphas=penalties, tol=LASSO_TOLERANCE)
    path: Floats = coefficients
    return path


def part_of(group: Group, trades: Ints) -> Group:
    """Some trades (ascending) of a group with one action for each trade."""
    return replace(
        group,
        trades=group.trades[trades],
        day=group.day[trades],
        row_trade=np.arange(len(trades)),
        codes=np.ascontiguousarray(group.codes[:, trades]),
    )


def indicators(slices: Slices, rows: Ints, group: Group) -> Floats:
    """Trades × slices: 1 where the slice matches the (only) action of a trade."""
    columns = np.empty((group.n_trades, len(rows)), order="F")
    for k, row in enumerate(rows):
        used = slices.table.dims[row] >= 0
        dims, codes = slices.table.dims[row][used], slices.table.codes[row][used]
        columns[:, k] = (group.codes[dims] == codes[:, None]).all(axis=0)
    return columns
