"""The compiled inner loops of mining: what one node of the descent knows of its slices.

A node is a scope subset with the actions that match it: `t` the trade of each (ascending),
`codes` (dimensions × actions) the values of the dimensions that may still be added, 0 for absent
or too rare. One pass over a dimension gathers, for each of its values and for each of these with
each value of every later dimension, the distinct trades and their sums. The actions are gone
through in blocks of whole trades that stay in the cache while all later dimensions use them.
Where a later dimension has one value all through a block, as the states of a market have, the
block is added up once by the values of the first one, and not again for each action.

Arrays in, arrays out: names, threads and meaning are in `core.mining`. Types are inferred by
numba, which cannot cache a function that calls itself: the recursion is in `core.mining` too.
"""

from __future__ import annotations

import numba as nb
import numpy as np

# Sums of several columns become one instruction. numba leaves this off, since LLVM has miscompiled
# it at times: the tests against naive twins would tell.
nb.config.SLP_VECTORIZE = 1  # type: ignore[attr-defined]  # set when numba is imported
_jit = nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=False)

_BLOCK = 64  # trades
_FEW = 16  # a block ends at midnight, unless it has fewer trades
_VARIOUS = -1

# Columns of a cell, one line of the cache: Σy and trades of this day; Σy² and the ranked score of
# all days; and as integers a hash of the trades, the day, the last trade, and the actions.
_SUM, _COUNT, _SQUARES, _SCORE, _KEY, _ON, _SEEN, _ACTIONS = range(8)
# … of its past days: trades, c'Kc, Σ c_d·e^(R − L_d) and its reference R, x'V⁻¹1; …
_N, _Q, _CARRY, _REFERENCE, _G = range(5)
# … and for the clustered error, with the day sums S and counts c of the slice, Y and N of the
# group: Σ S, Σ S·Y, Σ S·N, Σ S², Σ c·Y, Σ c·N, Σ c², Σ S·c.
_TOTAL, _SY, _SN, _SS, _CY, _CN, _CC, _SC = range(8, 16)
# Columns of a day: Y, N, K_dd, K_dd·e^(L_d − R), e^(R − L_d), R, V⁻¹1 of a trade.
_DAY_Y, _DAY_N, _OWN, _UP, _DOWN, _AT, _ONE = range(7)


# --- nodes ---------------------------------------------------------------------------------


@_jit
def frequent(codes, t, starts, constant, width, n_min):
    """Numbers of the values with at least `n_min` distinct trades, from 1 in order; 0 for others.

    Returns the number of each value (dimensions × width), the value of each number, and how many
    numbers there are, 0 included.
    """
    dims = codes.shape[0]
    number, value = np.zeros((dims, width), codes.dtype), np.zeros((dims, width), np.int64)
    widths = np.ones(dims, np.int64)
    trades, last = np.empty(width, np.int64), np.empty(width, np.int64)
    for d in range(dims):
        _count(codes[d], t, starts, constant[d], trades, last)
        for v in range(1, width):
            if trades[v] >= n_min:
                number[d, v] = widths[d]
                value[d, widths[d]] = v
                widths[d] += 1
    return number, value, widths


@_jit
def renumber(codes, constant, number):
    """Write the numbers over the codes of actions and blocks."""
    for d in range(codes.shape[0]):
        same = True
        for v in range(number.shape[1]):
            same &= number[d, v] == v
        if same:
            continue
        for p in range(codes.shape[1]):
            codes[d, p] = number[d, codes[d, p]]
        for b in range(constant.shape[1]):
            if constant[d, b] > 0:
                constant[d, b] = number[d, constant[d, b]]


@_jit
def _count(codes_d, t, starts, constant_d, trades, last):
    """Distinct trades of each value of a dimension."""
    trades[:] = 0
    last[:] = -1
    for b in range(constant_d.shape[0]):
        lo, hi = starts[b], starts[b + 1]
        if constant_d[b] >= 0:
            if constant_d[b] > 0:
                trades[constant_d[b]] += _distinct(t, lo, hi)
            continue
        for p in range(lo, hi):
            v = codes_d[p]
            trades[v] += last[v] != t[p]
            last[v] = t[p]


@_jit
def _distinct(t, lo, hi):
    n = 1
    for p in range(lo + 1, hi):
        n += t[p] != t[p - 1]
    return n


@_jit
def matching(t, codes, d, v):
    """The actions with value v of dimension d: their trades, and their later dimensions."""
    at = np.flatnonzero(codes[d] == v)
    inside = np.empty((codes.shape[0] - d - 1, at.shape[0]), codes.dtype)
    for k in range(inside.shape[0]):
        from_, to = codes[d + 1 + k], inside[k]
        for p in range(at.shape[0]):
            to[p] = from_[at[p]]
    return t[at], inside


@_jit
def cut(t, day):
    """Where the blocks begin, and the end; no trade is in two of them.

    Blocks end at midnight too, unless that makes them very short.
    """
    rows = t.shape[0]
    starts = np.empty(rows + 1, np.int64)
    n = trades = 0
    for p in range(rows):
        if p > 0 and t[p] == t[p - 1]:
            continue
        if p > 0 and day[t[p]] != day[t[p - 1]] and trades >= _FEW:
            trades = 0
        if trades in (0, _BLOCK):
            starts[n], trades = p, 0
            n += 1
        trades += 1
    starts[n] = rows
    return starts[: n + 1].copy()


@_jit
def constants(codes, starts):
    """The value that a dimension has all through a block (dimensions × blocks), −1 for several."""
    out = np.empty((codes.shape[0], starts.shape[0] - 1), np.int32)
    for j in range(codes.shape[0]):
        for b in range(out.shape[1]):
            first, differs = codes[j, starts[b]], False
            for p in range(starts[b], starts[b + 1]):
                differs |= codes[j, p] != first
            out[j, b] = _VARIOUS if differs else first
    return out


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


# --- everything about a slice --------------------------------------------------------------


@_jit
def describe_node(t, codes, starts, constant, widths, pairs, repeated, n_min, of_trade, of_day,
                  ones_total, noise, total, daily):  # fmt: skip
    """The slices that add one dimension to a node and, if `pairs`, those that add two.

    `of_trade` (trades × 8) is what `columns_of_trades` makes. Returns for each slice (dimension,
    value, later dimension or −1, its value), its trades and whether a simpler one has the same
    actions, (mean, variance, difference to the complement, its clustered error, evidence,
    information), the hash of its trades, with `daily` its trades by day, and how many rows are
    used.
    """
    group, n_group = _moments(of_day), of_trade.shape[0]
    totals = _totals(t, starts, of_trade)
    offset = np.zeros(codes.shape[0], np.int64)
    out_i, out_f, out_k = np.empty((256, 6), np.int32), np.empty((256, 6)), np.empty(256, np.uint64)
    days = of_day.shape[0] if daily else 0
    out_c = np.empty((256, days), np.uint16)
    used = 0
    for i in range(codes.shape[0]):
        if widths[i] <= 1:
            continue
        stride = _columns(i, widths, pairs, offset)
        cells, past, by_day = _gathered(
            t, codes, starts, constant, totals, widths, pairs, repeated, i, stride, offset,
            of_trade, of_day, days,
        )  # fmt: skip
        exact = cells.view(np.int64)
        for k in range(stride, cells.shape[0]):
            n = past[k, _N]
            if n < n_min:
                continue
            if used == out_k.shape[0]:
                out_i, out_f, out_k = _larger(out_i), _larger(out_f), _larger(out_k)
                out_c = _larger(out_c)
            if not _put(out_i[used], i, k, stride, offset, widths, pairs):
                continue
            first = k - k % stride
            simpler = exact[first, _ACTIONS] if k > first else t.shape[0]
            out_i[used, 4], out_i[used, 5] = int(n), _repeats(exact, k, first, simpler, t)
            out_k[used] = np.uint64(exact[k, _KEY])
            out_c[used] = by_day[k]
            _statistics(out_f[used], n, n_group - n, cells[k], past[k], group, total)
            out_f[used, 5] = _information(past[k], noise, ones_total)
            if n < n_group:
                out_f[used, 4] = cells[k, _SCORE] / np.sqrt(out_f[used, 5])
            used += 1
    return out_i, out_f, out_k, out_c, used


@_jit
def _repeats(exact, k, first, simpler, t):
    """Whether a cell has the actions of the node, of its first value, or that has the node's."""
    return exact[k, _ACTIONS] == simpler or exact[first, _ACTIONS] == t.shape[0]


@_jit
def _totals(t, starts, of_trade):
    """What each block holds, its distinct trades added up; day −1 for several."""
    out = np.zeros((starts.shape[0] - 1, 8))
    exact, more = out.view(np.int64), of_trade.view(np.int64)
    for b in range(out.shape[0]):
        first, last = t[starts[b]], t[starts[b + 1] - 1]
        exact[b, _ON] = more[first, _ON] if more[first, _ON] == more[last, _ON] else -1
        exact[b, _ACTIONS] = starts[b + 1] - starts[b]
        for p in range(starts[b], starts[b + 1]):
            if p == starts[b] or t[p] != t[p - 1]:
                _add4(out, b, of_trade, t[p])
                exact[b, _KEY] += more[t[p], _KEY]
    return out


@_jit
def _gathered(t, codes, starts, constant, totals, widths, pairs, repeated, i, stride, offset,
              of_trade, of_day, days):  # fmt: skip
    """What the cells of dimension i hold: today and in all, past days, and trades by day."""
    n_cells = widths[i] * stride
    cells, past, block = np.zeros((n_cells, 8)), np.zeros((n_cells, 16)), np.zeros((widths[i], 8))
    exact, counts, more = cells.view(np.int64), block.view(np.int64), of_trade.view(np.int64)
    exact[:, _ON : _SEEN + 1] = -1
    counts[:, _SEEN] = -1
    by_day = np.zeros((n_cells, days), np.uint16)
    date, there = totals.view(np.int64)[:, _ON], np.empty(widths[i], np.uint64)
    state = cells, exact, past, by_day
    for b in range(starts.shape[0] - 1):
        v, lo, hi, today = constant[i, b], starts[b], starts[b + 1], date[b]
        if v == 0:
            continue
        n_there = 0
        if today < 0:
            _add_rows(state, codes[i], codes[i], 0, t, lo, hi, stride, 0, repeated, of_trade, more,
                      of_day)  # fmt: skip
        elif v > 0:
            block[v] = totals[b]
            there[0] = v
            n_there = 1
        else:
            n_there = _add_up(block, counts, codes[i], t, lo, hi, repeated, of_trade, more, there)
        _add_block(state, block, counts, there, n_there, stride, 0, today, of_day)
        for j in range(i + 1, codes.shape[0] if pairs else 0):
            c, begin = constant[j, b], offset[j]
            if widths[j] <= 1 or c == 0:
                continue
            if c > 0 and today >= 0:
                _add_block(state, block, counts, there, n_there, stride, begin + c, today, of_day)
            else:
                _add_rows(state, codes[i], codes[j], 1, t, lo, hi, stride, begin, repeated,
                          of_trade, more, of_day)  # fmt: skip
        _clear(block, counts, there, n_there)
    _end_last_day(state, of_day)
    return cells, past, by_day


@_jit
def _end_last_day(state, of_day):
    cells, exact, past, by_day = state
    for k in range(cells.shape[0]):
        if exact[k, _ON] >= 0:
            if by_day.shape[1] > 0:
                by_day[k, exact[k, _ON]] = cells[k, _COUNT]
            _end_day(cells[k], of_day[exact[k, _ON]], past[k])


@_jit
def _add_up(block, counts, codes_i, t, lo, hi, repeated, of_trade, more, there):
    """The actions of a block by value; returns how many values are there."""
    n_there = 0
    for p in range(lo, hi):
        v = np.uint64(codes_i[p])
        if v == 0:
            continue
        if counts[v, _ACTIONS] == 0:
            there[n_there] = v
            n_there += 1
        counts[v, _ACTIONS] += 1
        if repeated:
            if counts[v, _SEEN] == t[p]:
                continue
            counts[v, _SEEN] = t[p]
        _add4(block, v, of_trade, t[p])
        counts[v, _KEY] += more[t[p], _KEY]
    return n_there


@_jit
def _clear(block, counts, there, n_there):
    for e in range(n_there):
        v = there[e]
        block[v, 0], block[v, 1], block[v, 2], block[v, 3] = 0.0, 0.0, 0.0, 0.0
        counts[v, _KEY] = 0
        counts[v, _ACTIONS] = 0


@_jit
def _add_block(state, block, counts, there, n_there, stride, within, date, of_day):
    """Add the distinct trades of a block, all of one day and new to their cells."""
    cells, exact, past, by_day = state
    for e in range(n_there):
        v = there[e]
        k = v * stride + within
        if exact[k, _ON] != date:
            if exact[k, _ON] >= 0:
                if by_day.shape[1] > 0:
                    by_day[k, exact[k, _ON]] = cells[k, _COUNT]
                _end_day(cells[k], of_day[exact[k, _ON]], past[k])
            exact[k, _ON] = date
        _add4(cells, k, block, v)
        exact[k, _KEY] += counts[v, _KEY]
        exact[k, _ACTIONS] += counts[v, _ACTIONS]


@_jit
def _add_rows(state, codes_i, codes_j, weight, t, lo, hi, stride, begin, repeated, of_trade, more,
              of_day):  # fmt: skip
    """Add actions to their cells, and their trades where the cell has not seen them.

    The cell is that of a value of dimension i, or with `weight` 1 of one of j too.
    """
    cells, exact, past, by_day = state
    for p in range(lo, hi):
        v = np.uint64(codes_i[p])
        if v == 0:
            continue
        k = v * np.uint64(stride) + np.uint64(begin + weight * codes_j[p])
        exact[k, _ACTIONS] += 1
        if repeated:
            if exact[k, _SEEN] == t[p]:
                continue
            exact[k, _SEEN] = t[p]
        if exact[k, _ON] != more[t[p], _ON]:
            if exact[k, _ON] >= 0:
                if by_day.shape[1] > 0:
                    by_day[k, exact[k, _ON]] = cells[k, _COUNT]
                _end_day(cells[k], of_day[exact[k, _ON]], past[k])
            exact[k, _ON] = more[t[p], _ON]
        _add4(cells, k, of_trade, t[p])
        exact[k, _KEY] += more[t[p], _KEY]


@_jit
def _end_day(cell, of_day, past):
    """Add what a cell counted today to its past."""
    s, c = cell[_SUM], cell[_COUNT]
    if past[_REFERENCE] != of_day[_AT]:
        past[_CARRY] *= np.exp(of_day[_AT] - past[_REFERENCE])
        past[_REFERENCE] = of_day[_AT]
    past[_Q] += c * (of_day[_OWN] * c + 2.0 * of_day[_UP] * past[_CARRY])
    past[_CARRY] += c * of_day[_DOWN]
    past[_G] += c * of_day[_ONE]
    past[_N] += c
    y, n = of_day[_DAY_Y], of_day[_DAY_N]
    past[_TOTAL] += s
    past[_SY] += s * y
    past[_SN] += s * n
    past[_SS] += s * s
    past[_CY] += c * y
    past[_CN] += c * n
    past[_CC] += c * c
    past[_SC] += s * c
    cell[_SUM] = 0.0
    cell[_COUNT] = 0.0


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
        if 0 <= w < (widths[j] if pairs else 1):
            out[2], out[3] = j, w
            return w > 0
    return False


@_jit
def name_pairs(where, dims, codes, first, value, order, depth):
    """Dimensions (as `order` translates them, ascending) and codes of the slices of a node.

    `dims` and `codes` are those of the node, `first` and `value` of its later dimensions; −1
    beyond the level of a slice.
    """
    out_d = np.full((where.shape[0], depth), -1, np.int16)
    out_c = np.full((where.shape[0], depth), -1, np.int32)
    for s in range(where.shape[0]):
        used = 0
        for k in range(dims.shape[0] + 2):
            if k < dims.shape[0]:
                d, c = dims[k], codes[k]
            else:
                j = where[s, 2 * (k - dims.shape[0])]
                if j < 0:
                    continue
                d, c = first + j, value[j, where[s, 2 * (k - dims.shape[0]) + 1]]
            at = used
            while at > 0 and out_d[s, at - 1] > order[d]:
                out_d[s, at], out_c[s, at] = out_d[s, at - 1], out_c[s, at - 1]
                at -= 1
            out_d[s, at], out_c[s, at] = order[d], c
            used += 1
    return out_d, out_c


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
def _statistics(out, n, m, cell, days, group, total):
    """Mean, variance, difference to the complement, its clustered error; NaN for the evidence."""
    s = days[_TOTAL]
    mean = s / n
    out[0] = mean
    out[1] = max(0.0, (cell[_SQUARES] - n * mean * mean) / (n - 1))
    out[2:5] = np.nan
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


# --- only sums -----------------------------------------------------------------------------


@_jit
def sum_node(t, codes, starts, constant, widths, pairs, repeated, where, y):
    """Sums of every column of `y` (trades × a multiple of 4) over the distinct trades of slices.

    `where` has the slices as `describe_node` names them, those of one dimension together.
    """
    totals = _sums_of_blocks(t, starts, y)
    out = np.zeros((where.shape[0] + 1, y.shape[1]))
    offset = np.zeros(codes.shape[0], np.int64)
    first = 0
    while first < where.shape[0]:
        i, end = where[first, 0], first
        stride = _columns(i, widths, pairs, offset)
        slot = np.zeros(widths[i] * stride, np.int32)
        while end < where.shape[0] and where[end, 0] == i:
            within = offset[where[end, 2]] + where[end, 3] if where[end, 2] >= 0 else 0
            slot[where[end, 1] * stride + within] = end - first + 1
            end += 1
        # The row before those of the dimension takes what is of no use, and is then put right.
        used = out[first].copy()
        _sum(t, codes, starts, constant, totals, widths, pairs, repeated, i, stride, offset, slot,
             y, out[first : end + 1])  # fmt: skip
        out[first] = used
        first = end
    return out[1:]


@_jit
def _sums_of_blocks(t, starts, y):
    out = np.zeros((starts.shape[0] - 1, y.shape[1]))
    for b in range(out.shape[0]):
        for p in range(starts[b], starts[b + 1]):
            if p == starts[b] or t[p] != t[p - 1]:
                _add(out[b], y[t[p]])
    return out


@_jit
def _sum(t, codes, starts, constant, totals, widths, pairs, repeated, i, stride, offset, slot, y,
         out):  # fmt: skip
    """Add to the rows of `out` what the cells of dimension i, by their `slot`, have of y."""
    block, there = np.zeros((widths[i], y.shape[1])), np.empty(widths[i], np.uint64)
    counted, last = np.zeros(widths[i], np.int64), np.full(widths[i], -1, np.int64)
    seen = np.full(out.shape[0] if repeated else 0, -1, np.int64)
    for b in range(starts.shape[0] - 1):
        v, lo, hi = constant[i, b], starts[b], starts[b + 1]
        if v == 0:
            continue
        if v > 0:
            block[v] = totals[b]
            there[0] = v
            n_there = 1
        else:
            n_there = _sum_up(block, counted, last, codes[i], t, lo, hi, repeated, y, there)
        _add_sums(out, slot, block, there, n_there, stride, 0)
        for j in range(i + 1, codes.shape[0] if pairs else 0):
            if widths[j] > 1 and constant[j, b] > 0:
                _add_sums(out, slot, block, there, n_there, stride, offset[j] + constant[j, b])
            elif widths[j] > 1 and constant[j, b] < 0:
                _sum_rows(out, slot, codes[i], codes[j], t, lo, hi, repeated, seen, stride,
                          offset[j], y)  # fmt: skip
        for e in range(n_there):
            counted[there[e]] = 0
            block[there[e]] = 0.0


@_jit
def _sum_up(block, counted, last, codes_i, t, lo, hi, repeated, y, there):
    """The sums of a block by value; returns how many values are there."""
    n_there, alone = 0, y.shape[1] == 1
    for p in range(lo, hi):
        v = np.uint64(codes_i[p])
        if counted[v] == 0:
            there[n_there] = v
            n_there += 1
        counted[v] += 1
        if repeated:
            if last[v] == t[p]:
                continue
            last[v] = t[p]
        if alone:
            block[v, 0] += y[t[p], 0]
        else:
            _add(block[v], y[t[p]])
    return n_there


@_jit
def _sum_rows(out, slot, codes_i, codes_j, t, lo, hi, repeated, seen, stride, begin, y):
    """Add the actions of a block to their slices, one after the other."""
    alone = y.shape[1] == 1
    for p in range(lo, hi):
        e = slot[np.uint64(codes_i[p]) * np.uint64(stride) + np.uint64(begin + codes_j[p])]
        if alone and repeated:
            # Without a branch, which would often be foreseen wrongly.
            out[e, 0] += y[t[p], 0] if seen[e] != t[p] else 0.0
            seen[e] = t[p]
        elif alone:
            out[e, 0] += y[t[p], 0]
        elif not (repeated and seen[e] == t[p]):
            _add(out[e], y[t[p]])
            if repeated:
                seen[e] = t[p]


@_jit
def _add_sums(out, slot, block, there, n_there, stride, within):
    alone = out.shape[1] == 1
    for n in range(n_there):
        e = slot[there[n] * stride + within]
        if alone:
            out[e, 0] += block[there[n], 0]
        else:
            _add(out[e], block[there[n]])


@_jit
def _add(to, x):
    for b in range(x.shape[0]):
        to[b] += x[b]


@_jit
def weigh_days(by_day, of_day):
    """c'Kc and 1'V⁻¹x of slices from their trades by day: see `dayshock`."""
    q, g = np.zeros(by_day.shape[0]), np.zeros(by_day.shape[0])
    for s in range(by_day.shape[0]):
        carry, reference = 0.0, 0.0
        for d in range(by_day.shape[1]):
            c = np.float64(by_day[s, d])
            if c == 0.0:
                continue
            if reference != of_day[d, _AT]:
                carry *= np.exp(of_day[d, _AT] - reference)
                reference = of_day[d, _AT]
            q[s] += c * (of_day[d, _OWN] * c + 2.0 * of_day[d, _UP] * carry)
            carry += c * of_day[d, _DOWN]
            g[s] += c * of_day[d, _ONE]
    return q, g


@_jit
def take_maxima(sums, information, level, score):
    """Raise `score` (columns × 2·levels) to the evidence² of the slices, by level and sign."""
    for e in range(sums.shape[0]):
        if not np.isfinite(information[e]):
            continue
        c, share = 2 * (level[e] - 1), 1.0 / information[e]
        for b in range(sums.shape[1]):
            z = sums[e, b]
            square = z * z * share
            k = c + (1 if z > 0 else 0)
            if square > score[b, k]:
                score[b, k] = square


@_jit
def columns_of_trades(y, ranked, day):
    """What `describe_node` needs of each trade, laid out as in a cell.

    `ranked` is V⁻¹ times the centred outcome that is ranked. The hash is a fixed 64-bit random
    number (splitmix64); sums of them identify sets of trades.
    """
    out = np.zeros((y.shape[0], 8))
    exact = out.view(np.int64)
    for i in range(out.shape[0]):
        out[i, _SUM], out[i, _COUNT] = y[i], 1.0
        out[i, _SQUARES], out[i, _SCORE] = y[i] * y[i], ranked[i]
        exact[i, _ON] = day[i]
        z = np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        exact[i, _KEY] = np.int64(z ^ (z >> np.uint64(31)))
    return out
