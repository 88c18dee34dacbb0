"""The compiled inner loop of mining: a depth-first descent over dimensions and their values.

At a node (an array of action positions), one pass per later dimension gathers for every value at
once the distinct trades and their sums; values with at least `n_min` trades are slices. Arrays
in, arrays out: names, threads and meaning are in `core.mining`. Types are inferred by numba.
"""

from __future__ import annotations

import numba as nb
import numpy as np

_jit = nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=False)


@_jit
def _prepare(pos, codes_d, row_trade, n_rows, n_trades, last):
    """Rows and distinct trades per value of one dimension at a node."""
    n_rows[:] = 0
    n_trades[:] = 0
    last[:] = -1
    for p in pos:
        v = codes_d[p]
        if v == 0:
            continue
        n_rows[v] += 1
        t = row_trade[p]
        if last[v] != t:
            last[v] = t
            n_trades[v] += 1


@_jit
def _carry(d, before, near, log_ratio):
    """Product of the ratios from day `before` to day d: e^(difference of the running logs)."""
    gap = d - before
    if gap < near.shape[1]:
        return near[d, gap]
    return np.exp(log_ratio[d] - log_ratio[before])


@_jit
def near_ratios(log_ratio, reach):
    """Ratios to each day from up to `reach` − 1 days before, days × reach: saves exponentials."""
    out = np.zeros((log_ratio.shape[0], reach))
    for d in range(log_ratio.shape[0]):
        for gap in range(min(reach, d + 1)):
            out[d, gap] = np.exp(log_ratio[d] - log_ratio[d - gap])
    return out


@_jit
def _gather(pos, codes_d, row_trade, y, day, diagonal, near, log_ratio, ones, n_min, n_trades,
            last, r, last_day, q, g, sums):  # fmt: skip
    """Per value: c'Kc (q) and x'V⁻¹1 (g) of the slice x with day counts c, and x'y per column."""
    last[:] = -1
    q[:] = 0.0
    r[:] = 0.0
    g[:] = 0.0
    sums[:] = 0.0
    for p in pos:
        v = codes_d[p]
        if v == 0 or n_trades[v] < n_min:
            continue
        t = row_trade[p]
        if last[v] == t:
            continue
        d = day[t]
        if last[v] >= 0 and d != last_day[v]:
            r[v] *= _carry(d, last_day[v], near, log_ratio)
        q[v] += diagonal[d] * (1.0 + 2.0 * r[v])
        r[v] += 1.0
        last_day[v] = d
        last[v] = t
        g[v] += ones[t]
        row = y[t]
        out = sums[v]
        for b in range(out.shape[0]):
            out[b] += row[b]


@_jit
def _scatter(pos, codes_d, n_rows, n_trades, n_min, start, out):
    """Counting sort of the positions by value; `start[v]` is where value v begins."""
    total = 0
    for v in range(1, n_rows.shape[0]):
        start[v] = total
        if n_trades[v] >= n_min:
            total += n_rows[v]
    for p in pos:
        v = codes_d[p]
        if v != 0 and n_trades[v] >= n_min:
            out[start[v]] = p
            start[v] += 1


@_jit
def _advance(stack, level, first, end0, depth, n_min, codes, row_trade, root, buffers,
             n_rows, n_trades, last, start, prune):  # fmt: skip
    """Move to the next node and dimension of the descent; returns its level, −1 at the end.

    A row of the stack holds: dimension, next value to descend into, and the node's segment of
    positions (of the buffer one level up; of the root at level 0). Recursion would read better,
    but numba cannot cache a function that calls itself.
    """
    if level < 0:
        stack[0, 0], stack[0, 1] = first - 1, n_rows.shape[1]
        stack[0, 2], stack[0, 3] = 0, root.shape[0]
        level = 0
    while level >= 0:
        v = stack[level, 1]
        if v < n_rows.shape[1]:
            stack[level, 1] = v + 1
            k = n_rows[level, v]
            size = stack[level, 3] - stack[level, 2]
            if n_trades[level, v] >= n_min and not (prune and k == size):
                stack[level + 1, 0] = stack[level, 0]
                stack[level + 1, 1] = n_rows.shape[1]
                stack[level + 1, 2] = start[level, v] - k
                stack[level + 1, 3] = start[level, v]
                level += 1
            continue
        stack[level, 0] += 1
        if stack[level, 0] >= (end0 if level == 0 else codes.shape[0]):
            level -= 1
            continue
        pos = _positions(stack, level, root, buffers)
        cd = codes[stack[level, 0]]
        _prepare(pos, cd, row_trade, n_rows[level], n_trades[level], last)
        if level + 1 < depth:
            _scatter(pos, cd, n_rows[level], n_trades[level], n_min, start[level], buffers[level])
            stack[level, 1] = 1
        return level
    return -1


@_jit
def _positions(stack, level, root, buffers):
    lo, hi = stack[level, 2], stack[level, 3]
    return root[lo:hi] if level == 0 else buffers[level - 1, lo:hi]


@_jit
def _path(stack, level, value, out_d, out_c, path_c):
    """Write the dimensions and codes of value `value` at the node of `level`."""
    for j in range(level + 1):
        out_d[j] = stack[j, 0]
        out_c[j] = value if j == level else path_c[j]


@_jit
def strongest_task(d1, depth, n_min, codes, row_trade, y, n_given, noise, day, diagonal,
                    near, log_ratio, ones, ones_total, width):  # fmt: skip
    """The best slice per column and level among those whose first dimension is `d1`.

    The last `n_given` columns of y are no outcomes: they span what is already explained.
    """
    columns, rows, big_t = y.shape[1] - n_given, codes.shape[1], y.shape[0]
    score = np.full((columns, 2 * depth), -1.0)
    best_d = np.full((columns, 2 * depth, depth), -1, np.int64)
    best_c = np.full((columns, 2 * depth, depth), -1, np.int64)
    stack = np.zeros((depth, 4), np.int64)
    root = np.arange(rows)
    buffers = np.empty((depth, rows), np.int64)
    n_rows = np.zeros((depth, width), np.int64)
    n_trades = np.zeros((depth, width), np.int64)
    start = np.zeros((depth, width), np.int64)
    last, last_day = np.empty(width, np.int64), np.empty(width, np.int64)
    q, r, g = np.empty(width), np.empty(width), np.empty(width)
    sums = np.empty((width, columns + n_given))
    path_c = np.zeros(depth, np.int64)
    level = -1
    while True:
        level = _advance(stack, level, d1, d1 + 1, depth, n_min, codes, row_trade, root, buffers,
                         n_rows, n_trades, last, start, True)  # fmt: skip
        if level < 0:
            return score, best_d, best_c
        for j in range(level):
            path_c[j] = stack[j, 1] - 1
        pos = _positions(stack, level, root, buffers)
        cd, nr, nt = codes[stack[level, 0]], n_rows[level], n_trades[level]
        _gather(pos, cd, row_trade, y, day, diagonal, near, log_ratio, ones, n_min, nt, last, r,
                last_day, q, g, sums)  # fmt: skip
        for v in range(1, width):
            n = nt[v]
            if n < n_min or nr[v] == pos.shape[0] or big_t - n < n_min:
                continue
            alone = (n - q[v]) / noise - g[v] * g[v] / ones_total
            information = alone
            for b in range(columns, columns + n_given):
                information -= sums[v, b] * sums[v, b]
            if 2.0 * n * information < n_min * alone:
                continue
            for b in range(columns):
                s = sums[v, b] * sums[v, b] / information
                cell = 2 * level + (1 if sums[v, b] > 0 else 0)
                if s > score[b, cell]:
                    score[b, cell] = s
                    _path(stack, level, v, best_d[b, cell], best_c[b, cell], path_c)


@_jit
def _day_sums(pos, codes_d, row_trade, y, day, day_y, day_n, n_min, n_trades, hashes,
              last, last_day, c, s, out):  # fmt: skip
    """Per value: sums of y and y², the hash, and the day products of the clustered error.

    out[v] = Σy, Σy², Σ S², Σ c², Σ S·c, Σ S·Y, Σ c·Y, Σ S·N, Σ c·N over the slice's days, with
    the day sums S and counts c of the slice, Y and N of the group. Returns the hashes.
    """
    keys = np.zeros(out.shape[0], np.uint64)
    last[:] = -1
    out[:] = 0.0
    c[:] = 0.0
    s[:] = 0.0
    for p in pos:
        v = codes_d[p]
        if v == 0 or n_trades[v] < n_min:
            continue
        t = row_trade[p]
        if last[v] == t:
            continue
        if last[v] >= 0 and day[t] != last_day[v]:
            _flush_day(out[v], s[v], c[v], day_y[last_day[v]], day_n[last_day[v]])
            c[v] = 0.0
            s[v] = 0.0
        last[v] = t
        last_day[v] = day[t]
        c[v] += 1.0
        s[v] += y[t]
        out[v, 0] += y[t]
        out[v, 1] += y[t] * y[t]
        keys[v] += hashes[t]
    for v in range(1, out.shape[0]):
        if last[v] >= 0:
            _flush_day(out[v], s[v], c[v], day_y[last_day[v]], day_n[last_day[v]])
    return keys


@_jit
def _flush_day(o, s, c, day_y, day_n):
    o[2] += s * s
    o[3] += c * c
    o[4] += s * c
    o[5] += s * day_y
    o[6] += c * day_y
    o[7] += s * day_n
    o[8] += c * day_n


@_jit
def _clustered_variance(n, m, mean_in, mean_out, o, yy, yn, nn):
    """Variance of slice minus complement from its influence function, summed by day.

    The influence of a day is a·S − b·c − (Y − N·mean_out)/m with a = 1/n + 1/m and
    b = mean_in/n + mean_out/m; its square is summed over all days of the group.
    """
    a = 1.0 / n + 1.0 / m
    b = mean_in / n + mean_out / m
    u = mean_out
    inside = a * a * o[2] - 2.0 * a * b * o[4] + b * b * o[3]
    cross = a * (o[5] - u * o[7]) - b * (o[6] - u * o[8])
    return inside - 2.0 * cross / m + (yy - 2.0 * u * yn + u * u * nn) / (m * m)


@_jit
def describe_task(d1, depth, n_min, codes, row_trade, y, white, total, noise, day,
                  diagonal, near, log_ratio, ones, ones_total, day_y, day_n, hashes, width,
                  capacity):  # fmt: skip
    """Every slice whose first dimension is `d1`, as far as there is room; all are counted."""
    rows, big_t = codes.shape[1], y.shape[0]
    yy, yn, nn = (day_y * day_y).sum(), (day_y * day_n).sum(), (day_n * day_n).sum()
    out_i = np.full((capacity, 2 + 2 * depth), -1, np.int64)
    out_f = np.full((capacity, 5), np.nan)
    out_k = np.empty(capacity, np.uint64)
    stack = np.zeros((depth, 4), np.int64)
    root = np.arange(rows)
    buffers = np.empty((depth, rows), np.int64)
    n_rows = np.zeros((depth, width), np.int64)
    n_trades = np.zeros((depth, width), np.int64)
    start = np.zeros((depth, width), np.int64)
    last, last_day = np.empty(width, np.int64), np.empty(width, np.int64)
    q, r, g = np.empty(width), np.empty(width), np.empty(width)
    c, s, sums = np.empty(width), np.empty(width), np.empty((width, 9))
    scores = np.empty((width, 1))
    path_c = np.zeros(depth, np.int64)
    used = 0
    level = -1
    while True:
        level = _advance(stack, level, d1, d1 + 1, depth, n_min, codes, row_trade, root, buffers,
                         n_rows, n_trades, last, start, False)  # fmt: skip
        if level < 0:
            return out_i, out_f, out_k, used
        for j in range(level):
            path_c[j] = stack[j, 1] - 1
        pos = _positions(stack, level, root, buffers)
        cd, nt = codes[stack[level, 0]], n_trades[level]
        _gather(pos, cd, row_trade, white, day, diagonal, near, log_ratio, ones, n_min, nt, last,
                r, last_day, q, g, scores)  # fmt: skip
        keys = _day_sums(pos, cd, row_trade, y, day, day_y, day_n, n_min, nt, hashes, last,
                         last_day, c, s, sums)  # fmt: skip
        for v in range(1, width):
            if nt[v] < n_min:
                continue
            if used < capacity:
                out_i[used, 0], out_i[used, 1] = level + 1, nt[v]
                _path(stack, level, v, out_i[used, 2:], out_i[used, 2 + depth :], path_c)
                out_k[used] = keys[v]
                information = (nt[v] - q[v]) / noise - g[v] * g[v] / ones_total
                _statistics(out_f[used], nt[v], big_t - nt[v], sums[v], total, yy, yn, nn)
                if nt[v] < big_t:
                    out_f[used, 4] = scores[v, 0] / np.sqrt(information)
            used += 1


@_jit
def _statistics(out, n, m, o, total, yy, yn, nn):
    """Mean, variance, difference to the complement, and its clustered error."""
    mean = o[0] / n
    out[0] = mean
    out[1] = max(0.0, (o[1] - n * mean * mean) / (n - 1))
    if m == 0:
        return
    mean_out = (total - o[0]) / m
    clustered = _clustered_variance(n, m, mean, mean_out, o, yy, yn, nn)
    out[2] = mean - mean_out
    out[3] = np.sqrt(max(0.0, clustered))


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
