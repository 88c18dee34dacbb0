"""The compiled inner loops of mining: what one node of the descent knows of its slices.

A node is a scope subset with the actions that match it: `t` the trade of each (ascending),
`codes` (dimensions × actions) the values of the dimensions that may still be added, 0 for absent
or too rare. One pass over a dimension gathers, for each of its values and for each of these with
each value of every later dimension, the distinct trades and their sums; the actions are gone
through in blocks that stay in the cache while all later dimensions use them. Sums that need
closing days are brought up to date when a cell meets a new day.

Arrays in, arrays out: names, threads and meaning are in `core.mining`. Types are inferred by
numba, which cannot cache a function that calls itself: the recursion is in `core.mining` too.
"""

from __future__ import annotations

import numba as nb
import numpy as np

_jit = nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=False)

_BLOCK = 64
_CARRIED = 256  # outcome columns carried at once: more would not stay in the cache

# Columns of a cell today: Σy and the count of this day; Σy² and the ranked score of all days.
_SUM, _COUNT, _SQUARES, _SCORE = range(4)
# … of its past days: trades, c'Kc, Σ c_d·e^(R − L_d) and its reference R, x'V⁻¹1; …
_N, _Q, _CARRY, _REFERENCE, _G = range(5)
# … and for the clustered error, with the day sums S and counts c of the slice, Y and N of the
# group: Σ S, Σ S·Y, Σ S·N, Σ S², Σ c·Y, Σ c·N, Σ c², Σ S·c.
_TOTAL, _SY, _SN, _SS, _CY, _CN, _CC, _SC = range(8)
# Columns of a day: Y, N, K_dd, K_dd·e^(L_d − R), e^(R − L_d), R, V⁻¹1 of a trade.
_DAY_Y, _DAY_N, _OWN, _UP, _DOWN, _AT, _ONE = range(7)


@_jit
def number_frequent(codes, t, width, n_min, out):
    """Per dimension the values with at least `n_min` distinct trades, numbered from 1 in order.

    Writes the codes in these numbers to `out` (0 for the others), and returns the values by
    number (dimensions × width) and how many numbers there are, 0 included.
    """
    dims, rows = codes.shape
    value = np.zeros((dims, width), np.int64)
    widths = np.ones(dims, np.int64)
    number = np.zeros(width, np.int64)
    trades, last = np.empty(width, np.int64), np.empty(width, np.int64)
    for d in range(dims):
        trades[:] = 0
        last[:] = -1
        for p in range(rows):
            v = codes[d, p]
            if last[v] != t[p]:
                last[v] = t[p]
                trades[v] += 1
        number[:] = 0
        for v in range(1, width):
            if trades[v] >= n_min:
                number[v] = widths[d]
                value[d, widths[d]] = v
                widths[d] += 1
        for p in range(rows):
            out[d, p] = number[codes[d, p]]
    return value, widths


@_jit
def matching(t, codes, d, v):
    """The actions with value v of dimension d: their trades, and their later dimensions."""
    at = np.flatnonzero(codes[d] == v)
    inside = np.empty((codes.shape[0] - d - 1, at.shape[0]), codes.dtype)
    for k in range(inside.shape[0]):
        for p in range(at.shape[0]):
            inside[k, p] = codes[d + 1 + k, at[p]]
    return t[at], inside


@_jit
def _weigh(c, of_day, past):
    """Add a day's count of trades to what the day shock weighs."""
    if past[_REFERENCE] != of_day[_AT]:
        past[_CARRY] *= np.exp(of_day[_AT] - past[_REFERENCE])
        past[_REFERENCE] = of_day[_AT]
    past[_Q] += c * (of_day[_OWN] * c + 2.0 * of_day[_UP] * past[_CARRY])
    past[_CARRY] += c * of_day[_DOWN]
    past[_G] += c * of_day[_ONE]
    past[_N] += c


@_jit
def _end_day(today, of_day, past, days):
    """Add what a cell counted today to its past."""
    s, c = today[_SUM], today[_COUNT]
    _weigh(c, of_day, past)
    y, n = of_day[_DAY_Y], of_day[_DAY_N]
    days[_TOTAL] += s
    days[_SY] += s * y
    days[_SN] += s * n
    days[_SS] += s * s
    days[_CY] += c * y
    days[_CN] += c * n
    days[_CC] += c * c
    days[_SC] += s * c
    today[_SUM] = 0.0
    today[_COUNT] = 0.0


@_jit
def _columns(i, widths, pairs, offset):
    """Where each later dimension begins among the cells of a value; returns the cells of one.

    The first cell is that of the value itself.
    """
    stride = 1
    for j in range(i + 1, widths.shape[0]):
        offset[j] = stride
        if pairs and widths[j] > 1:
            stride += widths[j]
    return stride


@_jit
def _block(t, codes_i, lo, stride, place, cell, trade):
    """The actions of a block that have a value: position, first cell, trade; returns how many."""
    m = 0
    for p in range(lo, min(lo + _BLOCK, t.shape[0])):
        v = codes_i[p]
        if v != 0:
            place[m] = p
            cell[m] = v * stride
            trade[m] = t[p]
            m += 1
    return m


@_jit
def describe_node(t, codes, widths, pairs, repeated, n_min, of_trade, hashes, day, of_day,
                  ones_total, noise, n_group, total):  # fmt: skip
    """The slices that add one dimension to a node and, if `pairs`, those that add two.

    `of_trade` (trades × 4) has y, 1, y² and V⁻¹ times the centred outcome that is ranked. Returns
    for each slice (dimension, value, later dimension or −1, its value, trades), (mean, variance,
    difference to the complement, its clustered error, evidence), the hash of its trades, and how
    many rows are used.
    """
    group = _moments(of_day)
    offset = np.zeros(codes.shape[0], np.int64)
    out_i, out_f, out_k = np.empty((256, 5), np.int64), np.empty((256, 5)), np.empty(256, np.uint64)
    used = 0
    for i in range(codes.shape[0]):
        if widths[i] <= 1:
            continue
        stride = _columns(i, widths, pairs, offset)
        today, past, days, keys = _gathered(t, codes, widths, pairs, repeated, i, stride, offset,
                                            of_trade, hashes, day, of_day)  # fmt: skip
        for k in range(stride, keys.shape[0]):
            n = past[k, _N]
            if n < n_min:
                continue
            if used == out_k.shape[0]:
                out_i, out_f, out_k = _larger(out_i), _larger(out_f), _larger(out_k)
            if not _put(out_i[used], i, k, stride, offset, widths, pairs):
                continue
            out_i[used, 4], out_k[used] = int(n), keys[k]
            _statistics(out_f[used], n, n_group - n, today[k], days[k], group, total)
            if n < n_group:
                information = _information(past[k], noise, ones_total)
                out_f[used, 4] = today[k, _SCORE] / np.sqrt(information)
            used += 1
    return out_i, out_f, out_k, used


@_jit
def _gathered(t, codes, widths, pairs, repeated, i, stride, offset, of_trade, hashes, day, of_day):
    """What the cells of dimension i hold: today, past days, the same for the error, and hashes."""
    n_cells = widths[i] * stride
    today, past, days = np.zeros((n_cells, 4)), np.zeros((n_cells, 5)), np.zeros((n_cells, 8))
    keys, on = np.zeros(n_cells, np.uint64), np.full(n_cells, -1, np.int64)
    seen = np.full(n_cells if repeated else 0, -1, np.int64)
    place, cell = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.int64)
    trade, cells = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.uint64)
    x, h, date = np.empty((_BLOCK, 4)), np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.int64)
    for lo in range(0, t.shape[0], _BLOCK):
        m = _block(t, codes[i], lo, stride, place, cell, trade)
        for r in range(m):
            x[r], h[r], date[r] = of_trade[trade[r]], hashes[trade[r]], day[trade[r]]
        for j in range(i, codes.shape[0]):
            if not _cells(i, j, pairs, widths, offset, codes, place, cell, m, cells):
                continue
            for r in range(m):
                k = cells[r]
                if repeated and not _is_new(seen, k, trade[r]):
                    continue
                if on[k] != date[r]:
                    if on[k] >= 0:
                        _end_day(today[k], of_day[on[k]], past[k], days[k])
                    on[k] = date[r]
                _add4(today, k, x, r)
                keys[k] += h[r]
    _end_last_day(on, of_day, today, past, days)
    return today, past, days, keys


@_jit
def _end_last_day(on, of_day, today, past, days):
    for k in range(on.shape[0]):
        if on[k] >= 0:
            _end_day(today[k], of_day[on[k]], past[k], days[k])


@_jit
def _is_new(seen, k, trade):
    """Whether a cell has not seen this trade yet; from now on it has."""
    if seen[k] == trade:
        return False
    seen[k] = trade
    return True


@_jit
def _information(past, noise, ones_total):
    """x'V⁻¹x beside the intercept."""
    return (past[_N] - past[_Q]) / noise - past[_G] * past[_G] / ones_total


@_jit
def _put(out, i, k, stride, offset, widths, pairs):
    """Write which slice cell k of dimension i is; false for a cell of absent values."""
    out[0], out[1], out[2], out[3] = i, k // stride, -1, -1
    within = k % stride
    if within == 0:
        return True
    for j in range(i + 1, widths.shape[0]):
        w = within - offset[j]
        if 0 <= w < _width(i, j, pairs, widths):
            out[2], out[3] = j, w
            return w > 0
    return False


@_jit
def _width(i, j, pairs, widths):
    """How many cells a value of dimension i has for dimension j; 2 for its own one."""
    if j == i:
        return 2
    return widths[j] if pairs else 1


@_jit
def _cells(i, j, pairs, widths, offset, codes, place, cell, m, cells):
    """The cells of the actions of a block for dimension j; false where there are none."""
    if j == i:
        for r in range(m):
            cells[r] = cell[r]
        return True
    if _width(i, j, pairs, widths) <= 1:
        return False
    codes_j = codes[j]
    for r in range(m):
        cells[r] = cell[r] + offset[j] + codes_j[place[r]]
    return True


@_jit
def _add4(to, k, x, r):
    """to[k] += x[r], all loads before the stores: one vector operation."""
    a0, a1, a2, a3 = to[k, 0], to[k, 1], to[k, 2], to[k, 3]
    b0, b1, b2, b3 = x[r, 0], x[r, 1], x[r, 2], x[r, 3]
    to[k, 0] = a0 + b0
    to[k, 1] = a1 + b1
    to[k, 2] = a2 + b2
    to[k, 3] = a3 + b3


@_jit
def _moments(of_day):
    """Σ Y², Σ Y·N and Σ N² over the days of the group."""
    y, n = of_day[:, _DAY_Y], of_day[:, _DAY_N]
    return (y * y).sum(), (y * n).sum(), (n * n).sum()


@_jit
def _larger(rows):
    """The rows with room for as many more."""
    return np.concatenate((rows, np.empty_like(rows)))


@_jit
def _statistics(out, n, m, today, days, group, total):
    """Mean, variance, difference to the complement, its clustered error; NaN for the evidence."""
    s = days[_TOTAL]
    mean = s / n
    out[0] = mean
    out[1] = max(0.0, (today[_SQUARES] - n * mean * mean) / (n - 1))
    out[2:] = np.nan
    if m > 0:
        mean_out = (total - s) / m
        out[2] = mean - mean_out
        out[3] = np.sqrt(max(0.0, _clustered_variance(n, m, mean, mean_out, days, group)))


@_jit
def _clustered_variance(n, m, mean_in, mean_out, days, group):
    """Variance of slice minus complement from its influence function, summed by day.

    The influence of a day is a·S − b·c − (Y − N·mean_out)/m with a = 1/n + 1/m and
    b = mean_in/n + mean_out/m; its square is summed over all days of the group.
    """
    a = 1.0 / n + 1.0 / m
    b = mean_in / n + mean_out / m
    u = mean_out
    yy, yn, nn = group
    inside = a * a * days[_SS] - 2.0 * a * b * days[_SC] + b * b * days[_CC]
    cross = a * (days[_SY] - u * days[_SN]) - b * (days[_CY] - u * days[_CN])
    return inside - 2.0 * cross / m + (yy - 2.0 * u * yn + u * u * nn) / (m * m)


@_jit
def strongest_node(t, codes, widths, pairs, repeated, n_min, y, n_given, day, of_day, ones_total,
                   noise, n_group, score, best):  # fmt: skip
    """The strongest slices that add one dimension to a node or, if `pairs`, two.

    The first `n_given` columns of y are no outcomes: they span what is already explained. Where a
    slice is stronger than `score` (columns × 2·levels: one dimension negative, positive, two
    negative, …) it takes its place there and in `best` (dimension, value, later dimension or −1,
    its value). Slices with the actions of a simpler one do not count.
    """
    width = y.shape[1]
    offset = np.zeros(codes.shape[0], np.int64)
    for i in range(codes.shape[0]):
        if widths[i] <= 1:
            continue
        stride = _columns(i, widths, pairs, offset)
        past, actions = _counted(t, codes, widths, pairs, repeated, i, stride, offset, day, of_day)
        chosen = _testable(past, actions, i, stride, offset, widths, pairs, t.shape[0], n_min,
                           n_group)  # fmt: skip
        slot = np.zeros(actions.shape[0], np.int64)
        slot[chosen] = np.arange(1, chosen.shape[0] + 1)
        information = np.empty(chosen.shape[0])
        lo = 0
        while lo < width:
            hi = n_given if lo < n_given else min(lo + _CARRIED, width)
            sums = _summed(t, codes, widths, pairs, repeated, i, stride, offset, slot,
                           chosen.shape[0] + 1, y, lo, hi)[1:]  # fmt: skip
            if lo == 0:
                for e in range(chosen.shape[0]):
                    information[e] = _left(past[chosen[e]], sums[e, :n_given], noise, ones_total,
                                           n_min)  # fmt: skip
            for e in range(chosen.shape[0]):
                level = 0 if chosen[e] % stride == 0 else 2
                for b in range(max(lo, n_given), hi):
                    value = sums[e, b - lo]
                    c = level + (1 if value > 0 else 0)
                    if value * value > score[b - n_given, c] * information[e]:
                        score[b - n_given, c] = value * value / information[e]
                        _put(best[b - n_given, c], i, chosen[e], stride, offset, widths, pairs)
            lo = hi


@_jit
def _left(past, given, noise, ones_total, n_min):
    """Information of a slice beside the given ones; infinite where it is worth too few trades."""
    alone = _information(past, noise, ones_total)
    left = alone - (given * given).sum()
    return np.inf if 2.0 * past[_N] * left < n_min * alone else left


@_jit
def _counted(t, codes, widths, pairs, repeated, i, stride, offset, day, of_day):
    """Past days and number of actions of the cells of dimension i."""
    n_cells = widths[i] * stride
    place, cell = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.int64)
    trade, cells = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.uint64)
    count, past = np.zeros(n_cells), np.zeros((n_cells, 5))
    on, actions = np.full(n_cells, -1, np.int64), np.zeros(n_cells, np.int64)
    seen = np.full(n_cells if repeated else 0, -1, np.int64)
    for lo in range(0, t.shape[0], _BLOCK):
        m = _block(t, codes[i], lo, stride, place, cell, trade)
        for j in range(i, widths.shape[0]):
            if not _cells(i, j, pairs, widths, offset, codes, place, cell, m, cells):
                continue
            for r in range(m):
                k = cells[r]
                actions[k] += 1
                if repeated and not _is_new(seen, k, trade[r]):
                    continue
                d = day[trade[r]]
                if on[k] != d:
                    if on[k] >= 0:
                        _weigh(count[k], of_day[on[k]], past[k])
                        count[k] = 0.0
                    on[k] = d
                count[k] += 1.0
    for k in np.flatnonzero(on >= 0):
        _weigh(count[k], of_day[on[k]], past[k])
    return past, actions


@_jit
def _testable(past, actions, i, stride, offset, widths, pairs, rows, n_min, n_group):
    """The cells that may be slices: large on both sides, with fewer actions than a simpler one."""
    out, name = np.zeros(actions.shape[0], np.bool_), np.empty(4, np.int64)
    for k in range(stride, actions.shape[0]):
        first = k - k % stride
        n = past[k, _N]
        out[k] = (
            n_min <= n <= n_group - n_min
            and actions[first] < rows
            and (k == first or actions[k] < actions[first])
            and _put(name, i, k, stride, offset, widths, pairs)
        )
    return np.flatnonzero(out)


@_jit
def _summed(t, codes, widths, pairs, repeated, i, stride, offset, slot, n_slots, y, first, end):
    """x'y of the cells that have a slot, for some columns of y; slot 0 is of no use."""
    place, cell = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.int64)
    trade, cells = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.uint64)
    width = end - first
    x, sums = np.empty((_BLOCK, width)), np.zeros((n_slots, width))
    seen = np.full(n_slots if repeated else 0, -1, np.int64)
    for lo in range(0, t.shape[0], _BLOCK):
        m = _block(t, codes[i], lo, stride, place, cell, trade)
        for r in range(m):
            x[r] = y[trade[r], first:end]
        for j in range(i, widths.shape[0]):
            if not _cells(i, j, pairs, widths, offset, codes, place, cell, m, cells):
                continue
            for r in range(m):
                e = slot[cells[r]]
                if e == 0:
                    continue
                if repeated and not _is_new(seen, e, trade[r]):
                    continue
                out, row = sums[e], x[r]
                for b in range(width):
                    out[b] += row[b]
    return sums


@_jit
def trade_hashes(n):
    """A fixed 64-bit random number per trade (splitmix64); sums of them identify sets."""
    out = np.empty(n, np.uint64)
    for i in range(n):
        z = np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out[i] = z ^ (z >> np.uint64(31))
    return out
