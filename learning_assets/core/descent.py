"""The compiled inner loops of mining: what one node of the descent knows of its slices.

A node is a scope subset with the actions that match it: `t` the trade of each (ascending),
`codes` (dimensions × actions) the values of the dimensions that may still be added, 0 for absent
or too rare. One pass over a dimension gathers, for each of its values and for each of these with
each value of every later dimension, the distinct trades and their sums. The actions are gone
through in blocks of whole trades that stay in the cache while all later dimensions use them.
Where a later dimension has one value all through a block, as the states of a market have, the
block is added up once by the values of the first one, and not again for each action.

What is summed by day is never closed: where y joins the S of its day, S² grows by y·(2·S + y), and
so does every other square. With few trades a day nearly each one would end the day of its cell.
Nor does a cell know which day it saw last: S is kept times a weight that is 2^54 times that of the
day before, so that what is left of earlier days is less than a sum of squares shows.

Arrays in, arrays out: names, threads and meaning are in `core.mining`. Types are inferred by
numba, which cannot cache a function that calls itself: the recursion is in `core.mining` too.
"""

from __future__ import annotations

import llvmlite.binding
import numba as nb
import numpy as np

# Sums of several columns become one instruction. numba leaves this off, since LLVM has miscompiled
# it at times: the tests against naive twins would tell.
nb.config.SLP_VECTORIZE = 1  # type: ignore[attr-defined]  # set when numba is imported
# Of four at once, not of eight: as a cell is often read again right after it was written, that is
# faster also where a register has room for eight.
llvmlite.binding.set_option("", "--slp-max-reg-size=256")
_jit = nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=False)

# For what is over before another thread would have taken its turn.
_brief = nb.njit(cache=True, error_model="numpy")

_BLOCK = 64  # trades
_FEW = 32  # a block of whole days has at least so many trades
_SPAN = 35  # days of a node for which weights and a reference are made; a block has _FEW at most
_VARIOUS = -1

# A cell is two lines of the cache. What each trade adds to it, with the sum Y and number N of the
# outcomes of its day: y, y², the ranked score, y·Y, y·N, Y, N, and V⁻¹1 of a trade; …
_TOTAL, _SQUARES, _SCORE, _SY, _SN, _CY, _CN, _G = range(8)
# … what it has of the last day seen, S and c (outcomes and trades) and S + c, times the weight of
# that day, and Σ e^(R − L_d) of all trades with a reference R; and over the days Σ S², Σ c²,
# Σ (S + c)² and c'Kc.
_S, _CARRY, _SS, _CC, _ZZ, _Q, _CELL = 8, 11, 12, 13, 14, 15, 16
# Its marks: the number of its trades and their hash.
_N, _KEY, _MARKS = range(3)
# An item is a trade, or what a block has of a value. It adds 12 numbers to those of a cell, four
# to its last ones, and as much of four factors as was in the four before. Then come its marks.
_ADDED, _FACTOR, _NOTED, _ITEM = 12, 16, 20, 24
_WEIGHS, _UPS = _S + 1, _FACTOR + 3  # of a trade: its day's weight, and twice K_dd·e^(L_d − R)
_CHUNK = 2048  # items that are made at once, at the least
_CELLS_PER_ITEM = 4  # so that the cells are not fetched again too often
# Columns of a day: Y, N, K_dd, V⁻¹1 of a trade, L_d with K_de = K_ee·e^(L_e − L_d) for d < e.
_DAY_Y, _DAY_N, _OWN, _ONE, _LOG = range(5)
# Of a day in its span: its weight, K_dd·e^(L_d − R), e^(R − L_d).
_WEIGHT, _UP, _DOWN = range(3)
_WEIGHTS = np.exp2(54.0 * (np.arange(_SPAN) - _SPAN // 2))  # a number has 53 bits
# If L falls by more from a day to the next, they share nothing that a number would show.
_STEEPEST = 37.0
_HIGHEST_LOG = 600.0  # L − R is at most so much, and by as much as L falls in a span less


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
    repeated = _distinct(t, 0, t.shape[0]) < t.shape[0]
    for d in range(dims):
        _count(codes[d], t, starts, constant[d], repeated, trades, last)
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
def _count(codes_d, t, starts, constant_d, repeated, trades, last):
    """Distinct trades of each value of a dimension."""
    trades[:], last[:] = 0, -1
    for b in range(constant_d.shape[0]):
        v, lo, hi = constant_d[b], starts[b], starts[b + 1]
        if v > 0:
            trades[v] += _distinct(t, lo, hi) if repeated else hi - lo
        elif v < 0 and repeated:
            for p in range(np.uint64(lo), np.uint64(hi)):
                trades[codes_d[p]] += last[codes_d[p]] != t[p]
                last[codes_d[p]] = t[p]
        elif v < 0:
            for p in range(np.uint64(lo), np.uint64(hi)):
                trades[codes_d[p]] += 1


@_jit
def _distinct(t, lo, hi):
    n = 1
    for p in range(lo + 1, hi):
        n += t[p] != t[p - 1]
    return n


@_jit
def new_node(t, codes, d, v, day, value, n_min):
    """The node with value v of dimension d: trades, numbers of its later dimensions, blocks.

    `value` translates the numbers of the node above. Returns the trades of its actions, their
    numbers, where the blocks begin, what is constant in them, and `frequent` of the numbers.
    """
    t, codes = _matching(t, codes, d, v)
    starts = cut(t, day)
    constant = constants(codes, starts)
    number, own, widths = frequent(codes, t, starts, constant, value.shape[1], n_min)
    for j in range(own.shape[0]):
        for k in range(own.shape[1]):
            own[j, k] = value[d + 1 + j, own[j, k]]
    renumber(codes, constant, number)
    return t, codes, starts, constant, number, own, widths


@_jit
def known_node(t, codes, d, v, day, number):
    """The same for numbers that are known."""
    t, codes = _matching(t, codes, d, v)
    starts = cut(t, day)
    constant = constants(codes, starts)
    renumber(codes, constant, number)
    return t, codes, starts, constant


@_jit
def _matching(t, codes, d, v):
    """The actions with value v of dimension d: their trades, and their later dimensions."""
    at = np.flatnonzero(codes[d] == v)
    inside = np.empty((codes.shape[0] - d - 1, at.shape[0]), codes.dtype)
    for k in range(inside.shape[0]):
        from_, to = codes[d + 1 + k], inside[k]
        for p in range(at.shape[0]):
            to[p] = from_[np.uint64(at[p])]
    return t[at], inside


@_jit
def cut(t, day):
    """Where the blocks begin, and the end; no trade is in two of them.

    A block that begins after the first trade of a day ends with that day.
    """
    rows = t.shape[0]
    starts = np.empty(rows + 1, np.int64)
    n, trades, has_begun_late = 0, 0, False
    for p in range(rows):
        if p > 0 and t[p] == t[p - 1]:
            continue
        is_new_day = p == 0 or day[t[p]] != day[t[p - 1]]
        if p == 0 or trades == _BLOCK or (is_new_day and (trades >= _FEW or has_begun_late)):
            starts[n], trades, has_begun_late = p, 0, not is_new_day
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
            for p in range(np.uint64(starts[b]), np.uint64(starts[b + 1])):
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
def describe_node(t, codes, starts, constant, widths, pairs, repeated, n_min, of_trade, keys, day,
                  of_day, ones_total, noise, total):  # fmt: skip
    """The slices that add one dimension to a node and, if `pairs`, those that add two.

    `of_trade` (trades × 8) and `keys` are what `columns_of_trades` makes. Returns for each slice
    (dimension, value, later dimension or −1, its value), its trades, whether a simpler one has the
    same actions, and the hash of its trades; and of all slices their means, variances, differences
    to the complement, clustered errors of these, evidence and information (6 × slices).
    """
    n_dims = codes.shape[0]
    in_span, share = _days_in_spans(t, starts, day, of_day)
    trades = t, of_trade, keys, day, of_day, in_span
    node = t, codes, starts, constant, widths, pairs, repeated
    whole = _moments(of_day), of_trade.shape[0], ones_total, noise, total
    begins, offset = _sizes(widths, pairs), np.zeros(n_dims, np.int64)
    least = max(_CHUNK, begins[-1] // _CELLS_PER_ITEM)
    chunks = _chunks(starts, least)
    most = np.diff(starts[chunks]).max()
    room = _room(most, np.diff(chunks).max())
    found = np.empty((256, 6), np.int32), np.empty((256, 6)), np.empty(256, np.uint64)
    used = 0
    # Items of one chunk stay, and go into the cells of one dimension after the other; else those
    # of all dimensions are filled from each chunk.
    step = 1 if chunks.shape[0] == 2 else n_dims
    for i0 in range(0, n_dims, max(step, 1)):
        i1 = i0 + step
        n_cells = begins[i1] - begins[i0]
        filled = _empty(n_cells, repeated)
        for c in range(chunks.shape[0] - 1):
            if i0 == 0:
                _make_items(trades, starts, chunks[c], chunks[c + 1], room)
            for i in range(i0, i1):
                if widths[i] > 1:
                    stride, lo = _columns(i, widths, pairs, offset), begins[i] - begins[i0]
                    into = _part(filled, lo, begins[i + 1] - begins[i0], repeated)
                    _fill(node, i, stride, offset, chunks[c], chunks[c + 1], room, share, into)
        for i in range(i0, i1):
            stride = _columns(i, widths, pairs, offset)
            used, found = _emit(node, i, stride, offset, begins[i] - begins[i0], filled, n_min,
                                whole, used, found)  # fmt: skip
    out_i, out_f, out_k = found
    where, n, repeats = out_i[:used, :4].copy(), out_i[:used, 4].copy(), out_i[:used, 5] != 0
    return where, n, repeats, out_k[:used].copy(), out_f[:used].T.copy()


@_jit
def _emit(node, i, stride, offset, begin, filled, n_min, whole, used, found):
    """Write down the slices of dimension i, whose cells begin at `begin`."""
    t, codes, _, _, widths, pairs, repeated = node
    cells, marks, actions, _ = filled
    for v in range(1, widths[i]):
        first = np.uint64(begin + v * stride)
        simpler = actions[first] if repeated else _number(marks, first)
        while used + stride > found[2].shape[0]:
            found = _larger(found[0]), _larger(found[1]), _larger(found[2])
        out_i, out_f, out_k = found
        for j in range(i, codes.shape[0] if pairs else i + 1):
            alone = j == i
            for w in range(0 if alone else 1, 1 if alone else widths[j]):
                k = first if alone else first + np.uint64(offset[j] + w)
                n = _number(marks, k)
                if n < n_min:
                    continue
                s = np.uint64(used)
                out_i[s, 0], out_i[s, 1] = i, v
                out_i[s, 2], out_i[s, 3] = (-1, -1) if alone else (j, w)
                mine, node_has = actions[k] if repeated else n, t.shape[0]
                is_same = mine == simpler or simpler == node_has
                out_i[s, 4], out_i[s, 5] = n, mine == node_has or (is_same and not alone)
                out_k[s] = np.uint64(marks[k * np.uint64(_MARKS) + np.uint64(_KEY)])
                _statistics(out_f, s, cells, k, n, whole)
                used += 1
    return used, found


@_jit
def _number(marks, k):
    """How many trades a cell has."""
    return marks[np.uint64(k) * np.uint64(_MARKS) + np.uint64(_N)]


@_jit
def _days_in_spans(t, starts, day, of_day):
    """What the days of a node are in their span; and of each block that begins one, √e^(R' − R).

    R' is the reference of that span and R of the one before; of other blocks it is −1. Without the
    root it would leave the range of numbers where what it is multiplied with does not.
    """
    out, share = np.empty((of_day.shape[0], 3)), np.full(starts.shape[0] - 1, -1.0)
    log, reference, k, before = 0.0, -_HIGHEST_LOG, -1, -1
    for b in range(share.shape[0]):
        today, days = before, 0
        for p in range(starts[b], starts[b + 1]):
            days += day[t[p]] != today
            today = day[t[p]]
        begins, today = k + days >= _SPAN, before
        for p in range(starts[b], starts[b + 1]):
            if day[t[p]] == today:
                continue
            today = day[t[p]]
            log += _fall(of_day, before, today) if before >= 0 else 0.0
            before, k = today, k + 1
            if begins:
                share[b] = np.exp((log - _HIGHEST_LOG - reference) / 2)
                reference, k, begins = log - _HIGHEST_LOG, 0, False
            down = np.exp(reference - log)
            out[today, _WEIGHT], out[today, _DOWN] = _WEIGHTS[k], down
            out[today, _UP] = of_day[today, _OWN] / down
    return out, share


@_jit
def _fall(of_day, before, d):
    """By how much L falls from a day to a later one (negative)."""
    return max(of_day[d, _LOG] - of_day[before, _LOG], -_STEEPEST)


@_jit
def _next_span(cells, share):
    """Bring cells to the next span of days: no sum of a day goes on, the reference is another."""
    for k in range(0, cells.shape[0], _CELL):
        _put_four(cells, np.uint64(k + _S), 0.0, 0.0, 0.0, cells[k + _CARRY] * share * share)


@_jit
def _empty(n_cells, repeated):
    """Empty cells with their marks and, where trades have several, actions and last trade."""
    cells, marks = _aligned(n_cells * _CELL), np.zeros(n_cells * _MARKS, np.int64)
    more = n_cells * repeated
    return cells, marks, np.zeros(more, np.int64), np.full(more, -1)


@_jit
def _part(filled, lo, hi, repeated):
    """Some of the cells."""
    cells, marks, actions, seen = filled
    a, b = lo * repeated, hi * repeated
    return (
        cells[lo * _CELL : hi * _CELL], marks[lo * _MARKS : hi * _MARKS], actions[a:b], seen[a:b]
    )  # fmt: skip


@_jit
def _chunks(starts, least):
    """At which blocks the chunks begin, and the end."""
    out, n = np.zeros(starts.shape[0], np.int64), 1
    for b in range(1, starts.shape[0]):
        if starts[b] - starts[out[n - 1]] >= least or b == starts.shape[0] - 1:
            out[n] = b
            n += 1
    return out[:n].copy()


@_jit
def _room(n_items, n_blocks):
    """For items and for blocks as items, both as numbers and as integers."""
    items, blocks = _aligned(n_items * _ITEM), _aligned(n_blocks * _ITEM)
    return items, items.view(np.int64), blocks, blocks.view(np.int64)


@_jit
def _aligned(n):
    """Zeros that begin with a line of the cache."""
    room = np.zeros(n + 8)
    skip = (-room.ctypes.data // 8) % 8
    return room[skip : skip + n]


@_jit
def _make_items(trades, starts, first, last, room):
    """Make items of the trades of the actions of the blocks first … last, and of the blocks."""
    t, of_trade, keys, day, of_day, in_span = trades
    items, exact, blocks, exact_blocks = room
    for p in range(starts[first], starts[last]):
        r, at = t[p], (p - starts[first]) * _ITEM
        d, y = day[r], of_trade[r, _TOTAL]
        for c in range(8):
            items[at + c] = of_trade[r, c]
        z, w, f = y + 1.0, in_span[d, _WEIGHT], 2.0 / in_span[d, _WEIGHT]
        _put_four(items, np.uint64(at + _S), w * y, w, w * z, in_span[d, _DOWN])
        _put_four(items, np.uint64(at + _ADDED), y * y, 1.0, z * z, of_day[d, _OWN])
        _put_four(items, np.uint64(at + _FACTOR), f * y, f, f * z, 2.0 * in_span[d, _UP])
        exact[at + _NOTED + _N], exact[at + _NOTED + _KEY] = 1, keys[r]
    cells, marks, _, _ = _empty(1, False)
    for b in range(first, last):
        cells[:], marks[:], weight, ups = 0.0, 0, 0.0, 0.0
        for p in range(starts[b], starts[b + 1]):
            if p == starts[b] or t[p] != t[p - 1]:
                e = p - starts[first]
                _add_item(items, exact, e, cells, marks, 0)
                weight = items[e * _ITEM + _WEIGHS]
                ups += items[e * _ITEM + _UPS]
        _as_item(cells, marks, 0, weight, ups, blocks, exact_blocks, b - first)


@_jit
def _as_item(cells, marks, k, weight, ups, items, exact, v):
    """Make an item of a cell that began empty with a block; its last trade has the weight."""
    at, to, share = k * _CELL, v * _ITEM, 2.0 / weight
    for c in range(_CELL):
        items[to + c] = cells[at + c]
    for c in range(3):
        items[to + _FACTOR + c] = share * (cells[at + _S + c] / weight)
    items[to + _UPS] = ups
    for c in range(_MARKS):
        exact[to + _NOTED + c] = marks[k * _MARKS + c]


@_jit
def _sizes(widths, pairs):
    """Where the cells of each dimension begin, and how many there are."""
    begins, offset = np.zeros(widths.shape[0] + 1, np.int64), np.zeros(widths.shape[0], np.int64)
    for i in range(widths.shape[0]):
        stride = _columns(i, widths, pairs, offset)
        begins[i + 1] = begins[i] + (widths[i] * stride if widths[i] > 1 else 0)
    return begins


@_jit
def _fill(node, i, stride, offset, first, end, room, share, into):
    """Add the blocks first … end to the cells of dimension i.

    What is unpacked here is not unpacked for each block: numba counts references to arrays, which
    takes as long as adding a few trades.
    """
    t, codes, starts, constant, widths, pairs, repeated = node
    items, exact, blocks, _ = room
    parts = _aligned(widths[i] * _ITEM)
    exact_parts = parts.view(np.int64)
    cells, marks, acted, seen = _empty(widths[i], True)
    last, ups = np.zeros(widths[i], np.int64), np.zeros(widths[i])
    there = np.empty(widths[i], np.uint64)
    row, base = codes[i], np.empty(np.diff(starts[first : end + 1]).max(), np.uint64)
    n_dims = codes.shape[0] if pairs else i + 1
    same, various = np.zeros(n_dims - i, np.uint64), np.empty(n_dims - i, np.int64)
    for b in range(first, end):
        v, lo, hi = constant[i, b], starts[b], starts[b + 1]
        if share[b] >= 0.0:
            _next_span(into[0], share[b])
        if v == 0:
            continue
        skip, n_there = lo - starts[first], 1
        if v > 0:
            for e in range(_ITEM):
                parts[v * _ITEM + e] = blocks[(b - first) * _ITEM + e]
            acted[v], there[0] = hi - lo, v
        else:
            _split_up(items, exact, skip, row, t, lo, hi, repeated, cells, marks, acted, seen, last,
                      ups)  # fmt: skip
            n_there = _as_items(items, cells, marks, last, ups, parts, exact_parts, there)
        _times(row, lo, hi, stride, base)
        n_same, n_various = _later(constant, widths, i, n_dims, b, offset, same, various)
        if repeated:
            for k in range(n_various):
                j = various[k]
                _add_actions(items, exact, skip, t, base, codes, j, lo, hi, offset[j], into)
        else:
            for k in range(1, n_various, 2):
                j, h = various[k - 1], various[k]
                _add_rows_twice(items, exact, skip, base, codes, j, h, lo, hi, offset[j],
                                offset[h], into)  # fmt: skip
            if n_various % 2 > 0:
                j = various[n_various - 1]
                _add_rows(items, exact, skip, base, codes, j, lo, hi, offset[j], into)
        _add_parts(parts, exact_parts, there, n_there, stride, same, n_same, acted, repeated, into)


@_jit
def _times(row, lo, hi, stride, base):
    """Where the cells of the values of the actions lo … hi begin."""
    first, stride = np.uint64(lo), np.uint64(stride)
    for p in range(np.uint64(hi - lo)):
        base[p] = np.uint64(row[first + p]) * stride


@_jit
def _split_up(items, exact, skip, row, t, lo, hi, repeated, cells, marks, acted, seen, last, ups):
    """What a block has of each value: cells, actions, the last item, K_dd·e^(L_d − R)."""
    cells[:], marks[:], acted[:], ups[:] = 0.0, 0, 0, 0.0
    first, skip = np.uint64(lo), np.uint64(skip)
    for p in range(np.uint64(hi - lo)):
        v, r = np.uint64(row[first + p]), t[first + p]
        if repeated:
            acted[v] += 1
        if not repeated or seen[v] != r:
            if repeated:
                seen[v] = r
            _add_item(items, exact, skip + p, cells, marks, v)
            last[v] = skip + p
            ups[v] += items[(skip + p) * np.uint64(_ITEM) + np.uint64(_UPS)]


@_jit
def _as_items(items, cells, marks, last, ups, parts, exact, there):
    """Make items of the cells of the values that are there; returns how many they are."""
    n_there = 0
    for v in range(1, last.shape[0]):
        if _number(marks, v) > 0:
            _as_item(cells, marks, v, items[last[v] * _ITEM + _WEIGHS], ups[v], parts, exact, v)
            there[n_there] = v
            n_there += 1
    return n_there


@_jit
def _later(constant, widths, i, n_dims, b, offset, same, various):
    """The later dimensions that have one value in a block, and those that have several.

    Of the first, the cells of a value are noted from `same[1]` on. Returns both ends.
    """
    n_same, n_various = 1, 0
    for j in range(i + 1, n_dims):
        value = constant[j, b]
        if widths[j] > 1 and value > 0:
            same[n_same] = offset[j] + value
            n_same += 1
        elif widths[j] > 1 and value < 0:
            various[n_various] = j
            n_various += 1
    return n_same, n_various


@_jit
def _add_parts(items, exact, there, n_there, stride, same, n_same, acted, repeated, into):
    """Add what a block has of each value to the same cells of each."""
    cells, marks, actions, _ = into
    for e in range(n_there):
        v = there[e]
        for c in range(n_same):
            k = v * np.uint64(stride) + same[c]
            _add_item(items, exact, v, cells, marks, k)
            if repeated:
                actions[k] += acted[v]


@_jit
def _add_actions(items, exact, skip, t, base, codes, j, lo, hi, begin, into):
    """Add actions to their cells, and their trades where the cell has not seen them."""
    cells, marks, actions, seen = into
    first, begin, row = np.uint64(lo), np.uint64(begin), codes[j]
    for p in range(np.uint64(hi - lo)):
        k, r = base[p] + begin + np.uint64(row[first + p]), t[first + p]
        actions[k] += 1
        if seen[k] != r:
            seen[k] = r
            _add_item(items, exact, np.uint64(skip) + p, cells, marks, k)


@_jit
def _add_rows(items, exact, skip, base, codes, j, lo, hi, begin, into):
    """Add trades of one action each to their cells of a later dimension."""
    cells, marks, _, _ = into
    first, begin, row = np.uint64(lo), np.uint64(begin), codes[j]
    for p in range(np.uint64(hi - lo)):
        k = base[p] + begin + np.uint64(row[first + p])
        _add_item(items, exact, np.uint64(skip) + p, cells, marks, k)


@_jit
def _add_rows_twice(items, exact, skip, base, codes, j, other, lo, hi, begin, also, into):
    """The same for two later dimensions at once."""
    cells, marks, _, _ = into
    first, begin, also = np.uint64(lo), np.uint64(begin), np.uint64(also)
    row, other_row = codes[j], codes[other]
    for p in range(np.uint64(hi - lo)):
        k = base[p] + begin + np.uint64(row[first + p])
        h = base[p] + also + np.uint64(other_row[first + p])
        _add_twice(items, exact, np.uint64(skip) + p, cells, marks, k, h)


@_jit
def _add_item(items, exact, e, cells, marks, k):
    """Add item e to cell k, which has no later trade.

    A block of several days begins a new one: then no cell has trades of its first day. There are
    no branches, which would often be foreseen wrongly, and eight or four numbers are one vector:
    loads come before stores.
    """
    x, to = np.uint64(e) * np.uint64(_ITEM), np.uint64(k) * np.uint64(_CELL)
    of, on = x + np.uint64(_NOTED), np.uint64(k) * np.uint64(_MARKS)
    marks[on] += exact[of]
    marks[on + np.uint64(_KEY)] += exact[of + np.uint64(_KEY)]
    a0, a1, a2, a3 = _four(cells, to)
    a4, a5, a6, a7 = _four(cells, to + np.uint64(4))
    b0, b1, b2, b3 = _four(items, x)
    b4, b5, b6, b7 = _four(items, x + np.uint64(4))
    _put_four(cells, to, a0 + b0, a1 + b1, a2 + b2, a3 + b3)
    _put_four(cells, to + np.uint64(4), a4 + b4, a5 + b5, a6 + b6, a7 + b7)
    s0, s1, s2, s3 = _four(cells, to + np.uint64(_S))
    d0, d1, d2, d3 = _four(items, x + np.uint64(_S))
    f0, f1, f2, f3 = _four(items, x + np.uint64(_FACTOR))
    w0, w1, w2, w3 = _four(cells, to + np.uint64(_SS))
    e0, e1, e2, e3 = _four(items, x + np.uint64(_ADDED))
    w0, w1, w2, w3 = (
        w0 + (e0 + s0 * f0),
        w1 + (e1 + s1 * f1),
        w2 + (e2 + s2 * f2),
        w3 + (e3 + s3 * f3),
    )
    _put_four(cells, to + np.uint64(_S), s0 + d0, s1 + d1, s2 + d2, s3 + d3)
    _put_four(cells, to + np.uint64(_SS), w0, w1, w2, w3)


@_jit
def _add_twice(items, exact, e, cells, marks, k, h):
    """Add item e to two cells: the same, but it is read once and neither waits for the other."""
    x, half = np.uint64(e) * np.uint64(_ITEM), np.uint64(4)
    a, b = np.uint64(k) * np.uint64(_CELL), np.uint64(h) * np.uint64(_CELL)
    n, key = exact[x + np.uint64(_NOTED)], exact[x + np.uint64(_NOTED + _KEY)]
    on, at = np.uint64(k) * np.uint64(_MARKS), np.uint64(h) * np.uint64(_MARKS)
    marks[on] += n
    marks[on + np.uint64(_KEY)] += key
    marks[at] += n
    marks[at + np.uint64(_KEY)] += key
    l0, l1, l2, l3 = _four(items, x)
    l4, l5, l6, l7 = _four(items, x + half)
    d0, d1, d2, d3 = _four(items, x + np.uint64(_S))
    e0, e1, e2, e3 = _four(items, x + np.uint64(_ADDED))
    f0, f1, f2, f3 = _four(items, x + np.uint64(_FACTOR))
    a0, a1, a2, a3 = _four(cells, a)
    a4, a5, a6, a7 = _four(cells, a + half)
    s0, s1, s2, s3 = _four(cells, a + np.uint64(_S))
    v0, v1, v2, v3 = _four(cells, a + np.uint64(_SS))
    b0, b1, b2, b3 = _four(cells, b)
    b4, b5, b6, b7 = _four(cells, b + half)
    t0, t1, t2, t3 = _four(cells, b + np.uint64(_S))
    w0, w1, w2, w3 = _four(cells, b + np.uint64(_SS))
    v0, v1, v2, v3 = (
        v0 + (e0 + s0 * f0),
        v1 + (e1 + s1 * f1),
        v2 + (e2 + s2 * f2),
        v3 + (e3 + s3 * f3),
    )
    w0, w1, w2, w3 = (
        w0 + (e0 + t0 * f0),
        w1 + (e1 + t1 * f1),
        w2 + (e2 + t2 * f2),
        w3 + (e3 + t3 * f3),
    )
    _put_four(cells, a, a0 + l0, a1 + l1, a2 + l2, a3 + l3)
    _put_four(cells, a + half, a4 + l4, a5 + l5, a6 + l6, a7 + l7)
    _put_four(cells, a + np.uint64(_S), s0 + d0, s1 + d1, s2 + d2, s3 + d3)
    _put_four(cells, a + np.uint64(_SS), v0, v1, v2, v3)
    _put_four(cells, b, b0 + l0, b1 + l1, b2 + l2, b3 + l3)
    _put_four(cells, b + half, b4 + l4, b5 + l5, b6 + l6, b7 + l7)
    _put_four(cells, b + np.uint64(_S), t0 + d0, t1 + d1, t2 + d2, t3 + d3)
    _put_four(cells, b + np.uint64(_SS), w0, w1, w2, w3)


@_jit
def _four(x, r):
    return x[r], x[r + np.uint64(1)], x[r + np.uint64(2)], x[r + np.uint64(3)]


@_jit
def _put_four(x, r, a, b, c, d):
    x[r], x[r + np.uint64(1)], x[r + np.uint64(2)], x[r + np.uint64(3)] = a, b, c, d


@_brief
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
def _moments(of_day):
    """Σ Y², Σ Y·N and Σ N² over the days of the group."""
    y, n = of_day[:, _DAY_Y], of_day[:, _DAY_N]
    return (y * y).sum(), (y * n).sum(), (n * n).sum()


@_jit
def _larger(rows):
    """The rows with room for as many more."""
    return np.concatenate((rows, np.empty_like(rows)))


@_jit
def _statistics(out, at, cells, k, n, whole):
    """Mean, variance, difference to the complement, its clustered error, evidence, information.

    They are written to row `at`, of cell k with its n trades; NaN where there is no complement.
    """
    group, n_group, ones_total, noise, total = whole
    of = k * np.uint64(_CELL)
    s, squares, score, sy = _four(cells, of)
    sn, cy, cn, g = _four(cells, of + np.uint64(4))
    ss, cc, zz, q = _four(cells, of + np.uint64(_SS))
    m, mean = n_group - n, s / n
    information = (n - q) / noise - g * g / ones_total  # x'V⁻¹x
    out[at, 0] = mean
    out[at, 1] = max(0.0, (squares - n * mean * mean) / (n - 1))
    out[at, 2:5] = np.nan
    out[at, 5] = information
    if m > 0:
        mean_out = (total - s) / m
        variance = _clustered_variance(n, m, mean, mean_out, (sy, sn, cy, cn, ss, cc, zz), group)
        out[at, 2] = mean - mean_out
        out[at, 3] = np.sqrt(max(0.0, variance))
        out[at, 4] = score / np.sqrt(information)


@_jit
def _clustered_variance(n, m, mean_in, mean_out, cell, group):
    """Variance of slice minus complement from its influence function, summed by day.

    The influence of a day is a·S − b·c − (Y − N·mean_out)/m with a = 1/n + 1/m and
    b = mean_in/n + mean_out/m; its square is summed over all days of the group.
    """
    a = 1.0 / n + 1.0 / m
    b = mean_in / n + mean_out / m
    u = mean_out
    yy, yn, nn = group
    sy, sn, cy, cn, ss, cc, zz = cell
    inside = a * a * ss - a * b * (zz - ss - cc) + b * b * cc
    cross = a * (sy - u * sn) - b * (cy - u * cn)
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
        i, stride, slot, end = _next_dimension(where, first, widths, pairs, offset)
        # The row before those of the dimension takes what is of no use, and is then put right.
        used = out[first].copy()
        _sum(t, codes, starts, constant, totals, widths, pairs, repeated, i, stride, offset, slot,
             y, out[first : end + 1])  # fmt: skip
        out[first] = used
        first = end
    return out[1:]


@_jit
def count_node(t, codes, starts, constant, widths, pairs, repeated, where, day, days):
    """How many distinct trades slices have on each day (slices × days); see `sum_node`."""
    out = np.zeros((where.shape[0] + 1, days), np.uint16)
    offset = np.zeros(codes.shape[0], np.int64)
    first = 0
    while first < where.shape[0]:
        i, stride, slot, end = _next_dimension(where, first, widths, pairs, offset)
        used = out[first].copy()
        _count_days(t, codes, starts, constant, widths, pairs, repeated, i, stride, offset, slot,
                    day, out[first : end + 1])  # fmt: skip
        out[first] = used
        first = end
    return out[1:]


@_jit
def _next_dimension(where, first, widths, pairs, offset):
    """The dimension of slice `first`, the cells of a value, the rows of its cells, and its end.

    Rows count from 1 at `first`; 0 is that of the cells of no use.
    """
    i, end = where[first, 0], first
    stride = _columns(i, widths, pairs, offset)
    slot = np.zeros(widths[i] * stride, np.int32)
    while end < where.shape[0] and where[end, 0] == i:
        within = offset[where[end, 2]] + where[end, 3] if where[end, 2] >= 0 else 0
        slot[where[end, 1] * stride + within] = end - first + 1
        end += 1
    return i, stride, slot, end


@_jit
def _count_days(t, codes, starts, constant, widths, pairs, repeated, i, stride, offset, slot, day,
                out):  # fmt: skip
    """Count in the rows of `out` the trades that the cells of dimension i, by their `slot`, have.

    A block of one day that has one value of the later dimension is counted once by value.
    """
    n, last = np.zeros(widths[i], np.int64), np.full(widths[i], -1)
    seen = np.full(out.shape[0] if repeated else 0, -1)
    for b in range(starts.shape[0] - 1):
        lo, hi = starts[b], starts[b + 1]
        if constant[i, b] == 0:
            continue
        today, one_day = day[t[lo]], day[t[lo]] == day[t[hi - 1]]
        n[:] = 0
        for p in range(lo, hi):
            n[codes[i, p]] += last[codes[i, p]] != t[p]
            last[codes[i, p]] = t[p]
        for j in range(i, codes.shape[0] if pairs else i + 1):
            value, begin = (0, 0) if j == i else (constant[j, b], offset[j])
            if j > i and (widths[j] <= 1 or value == 0):
                continue
            if value >= 0 and one_day:
                for v in range(1, widths[i]):
                    out[slot[v * stride + begin + value], today] += n[v]
            else:
                _count_rows(t, codes[i], codes[j], lo, hi, stride, begin, value, repeated, slot,
                            seen, day, out)  # fmt: skip


@_jit
def _count_rows(t, codes_i, codes_j, lo, hi, stride, begin, value, repeated, slot, seen, day, out):
    """Count the trades of a block, each on its day; the later dimension may have one value."""
    for p in range(lo, hi):
        within = begin + (codes_j[p] if value < 0 else value)
        e = slot[np.uint64(codes_i[p]) * np.uint64(stride) + np.uint64(within)]
        if repeated:
            if seen[e] == t[p]:
                continue
            seen[e] = t[p]
        out[e, day[t[p]]] += 1


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
    down, share = np.ones(by_day.shape[1]), np.ones(by_day.shape[1])
    up, log, reference = 2.0 * of_day[:, _OWN], 0.0, 0.0
    for d in range(1, by_day.shape[1]):
        log += _fall(of_day, d - 1, d)
        if reference - log > _HIGHEST_LOG:
            share[d], reference = np.exp(log - reference), log
        down[d] = np.exp(reference - log)
        up[d] /= down[d]
    for s in range(by_day.shape[0]):
        carry = 0.0
        for d in range(by_day.shape[1]):
            if share[d] != 1.0:
                carry *= share[d]
            c = np.float64(by_day[s, d])
            if c == 0.0:
                continue
            q[s] += c * (of_day[d, _OWN] * c + up[d] * carry)
            carry += c * down[d]
            g[s] += c * of_day[d, _ONE]
    return q, g


@_jit
def take_given(sums, own, given):
    """Take `own` (slices × k) times `given` (k × columns) from the sums.

    Threads of a library would wait for each other, since all of ours are at work.
    """
    for e in range(sums.shape[0]):
        for r in range(own.shape[1]):
            w = own[e, r]
            for b in range(sums.shape[1]):
                sums[e, b] -= w * given[r, b]


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
def columns_of_trades(y, ranked, day, of_day):
    """What each trade adds to a cell (see the columns there), and the hash of each trade.

    `ranked` is V⁻¹ times the centred outcome that is ranked. The hash is a fixed 64-bit random
    number (splitmix64); sums of them identify sets of trades.
    """
    out, keys = np.empty((y.shape[0], 8)), np.empty(y.shape[0], np.int64)
    for i in range(out.shape[0]):
        on = of_day[day[i]]
        out[i, _TOTAL], out[i, _SQUARES], out[i, _SCORE] = y[i], y[i] * y[i], ranked[i]
        out[i, _SY], out[i, _SN] = y[i] * on[_DAY_Y], y[i] * on[_DAY_N]
        out[i, _CY], out[i, _CN], out[i, _G] = on[_DAY_Y], on[_DAY_N], on[_ONE]
        z = np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        keys[i] = np.int64(z ^ (z >> np.uint64(31)))
    return out, keys


# --- tables of several dimensions ----------------------------------------------------------

_MOST_ACTIONS = 6  # of one trade that differ from each other
_ROWS_TOGETHER = 1024  # trades whose outcomes stay in the cache while several tables use them


@_jit
def distinct_actions(t, numbers, n_trades):
    """The actions of each trade that differ from those before them, and in which dimensions.

    Returns their places, where those of each trade begin, and the end; the dimensions as bits in
    which each differs from each before it, in order, and where these begin. No places where a
    trade has too many.
    """
    kept, begin = np.empty(t.shape[0], np.int64), np.zeros(n_trades + 1, np.int64)
    n, lo = 0, 0
    while lo < t.shape[0]:
        hi, first = lo, n
        while hi < t.shape[0] and t[hi] == t[lo]:
            is_new = True
            for k in range(first, n):
                is_new &= _difference(numbers, kept[k], hi) != 0
            if is_new:
                kept[n] = hi
                n += 1
            hi += 1
        if n - first > _MOST_ACTIONS:
            return kept[:0], begin, np.zeros(0, np.uint64), begin
        begin[t[lo] + 1] = n - first
        lo = hi
    pairs = np.cumsum(begin * (begin - 1) // 2)
    begin = np.cumsum(begin)
    differ, n = np.zeros(pairs[-1], np.uint64), 0
    for r in range(n_trades):
        for b in range(begin[r], begin[r + 1]):
            for a in range(begin[r], b):
                differ[n] = _difference(numbers, kept[a], kept[b])
                n += 1
    return kept[: begin[-1]].copy(), begin, differ, pairs


@_jit
def _difference(numbers, p, q):
    """The dimensions, as bits, in which two actions differ."""
    bits = np.uint64(0)
    for d in range(numbers.shape[0]):
        bits |= np.uint64(numbers[d, p] != numbers[d, q]) << np.uint64(d)
    return bits


@_jit
def common_rows(numbers, kept, begin):
    """What each set of distinct actions of a trade has in common (dimensions × sets), 0 for else.

    Set s of a trade, from 1, has the actions of the bits of s. Also where those of each trade
    begin, and the end.
    """
    first = np.zeros(begin.shape[0], np.int64)
    for r in range(begin.shape[0] - 1):
        first[r + 1] = first[r] + (1 << (begin[r + 1] - begin[r])) - 1
    out = np.empty((numbers.shape[0], first[-1]), numbers.dtype)
    for d in range(numbers.shape[0]):
        for r in range(begin.shape[0] - 1):
            for some in range(1, 1 + first[r + 1] - first[r]):
                out[d, first[r] + some - 1] = _common(numbers[d], kept, begin[r], some)
    return out, first


@_jit
def _common(numbers_d, kept, p, some):
    """The value that some actions, as bits, have in a dimension; 0 for several."""
    v, seen = numbers_d[0], False
    while some:
        if some & 1:
            own = numbers_d[kept[p]]
            if seen and own != v:
                return numbers_d.dtype.type(0)
            v, seen = own, True
        some >>= 1
        p += 1
    return v


@_jit
def fill_cubes(numbers, first, differ, pairs, dims, strides, starts, less, cover, y):
    """Tables (cells × columns of y) with the sums of y (trades × a multiple of 8) in each cell.

    Table k has the dimensions `dims[k]` at `strides[k]` (0 beyond its last), from row `starts[k]`
    on; `less[k]` is taken from the place of a cell, `cover[k]` has the bits of its dimensions.
    """
    width = np.uint64(y.shape[1])
    cells, y = _aligned(starts[-1] * y.shape[1]), y.reshape(-1)
    n_trades, most = first.shape[0] - 1, 0
    for lo in range(0, n_trades, _ROWS_TOGETHER):
        most = max(most, first[min(lo + _ROWS_TOGETHER, n_trades)] - first[lo])
    place = np.empty(most, np.uint32)
    for lo in range(0, n_trades, _ROWS_TOGETHER):
        hi = min(lo + _ROWS_TOGETHER, n_trades)
        for k in range(dims.shape[0]):
            _find_places(numbers[:, first[lo] : first[hi]], dims[k], strides[k],
                         starts[k] - less[k], place)  # fmt: skip
            for n in range(lo, hi):
                live = _live(differ, pairs[n], pairs[n + 1], cover[k])
                some, x, p = live, np.uint64(n) * width, first[n] - first[lo] - 1
                while some > 0:
                    c = np.uint64(place[np.uint64(p + some)]) * width
                    if _is_odd(some):
                        _add_row(cells, c, y, x, width)
                    else:
                        _take_row(cells, c, y, x, width)
                    some = (some - 1) & live
    return cells


@_jit
def _find_places(numbers, dims, strides, first, place):
    """The cells of rows in a table."""
    place[: numbers.shape[1]] = first
    for j in range(dims.shape[0]):
        row, stride = numbers[dims[j]], np.uint32(strides[j])
        for p in range(row.shape[0]):
            place[p] += np.uint32(stride * np.uint32(row[p]))


@_jit
def _live(differ, q, end, cover):
    """Which actions of a trade, as bits, differ in the dimensions of a table from all before."""
    live, b = 1, 1
    while q < end:
        is_new = True
        for _ in range(b):
            is_new &= differ[np.uint64(q)] & cover != 0
            q += 1
        live |= is_new << b
        b += 1
    return live


@_jit
def _is_odd(bits):
    odd = bits ^ bits >> 4  # there are at most six
    return (0x6996 >> (odd & 15)) & 1


@_jit
def _add_row(to, k, of, x, width):
    """Add as many numbers as `width`, a multiple of 8, says."""
    for b in range(np.uint64(0), width, np.uint64(8)):
        i, j = k + b, x + b
        a0, a1, a2, a3, a4, a5, a6, a7 = _eight(to, i)
        b0, b1, b2, b3, b4, b5, b6, b7 = _eight(of, j)
        _put_eight(to, i, a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5, a6 + b6, a7 + b7)


@_jit
def _take_row(to, k, of, x, width):
    """Take them away."""
    for b in range(np.uint64(0), width, np.uint64(8)):
        i, j = k + b, x + b
        a0, a1, a2, a3, a4, a5, a6, a7 = _eight(to, i)
        b0, b1, b2, b3, b4, b5, b6, b7 = _eight(of, j)
        _put_eight(to, i, a0 - b0, a1 - b1, a2 - b2, a3 - b3, a4 - b4, a5 - b5, a6 - b6, a7 - b7)


@_jit
def _eight(x, r):
    a, b, c, d = _four(x, r)
    e, f, g, h = _four(x, r + np.uint64(4))
    return a, b, c, d, e, f, g, h


@_jit
def _put_eight(x, r, a, b, c, d, e, f, g, h):
    _put_four(x, r, a, b, c, d)
    _put_four(x, r + np.uint64(4), e, f, g, h)


@_jit
def sum_out(cells, columns, begin, steps):
    """Fill the margins of a table that begins at row `begin` of the cells.

    A step sums out a dimension: it has where what it is taken from begins, and where its result
    does, how many cells there are before the dimension, its width, and how many after it.
    """
    for k in range(steps.shape[0]):
        source, to, inner, width, outer = steps[k]
        run = np.uint64(inner * columns)
        for o in range(outer):
            into = np.uint64((begin + to) * columns) + np.uint64(o) * run
            for v in range(width):
                of = np.uint64((begin + source) * columns) + np.uint64(o * width + v) * run
                _add_row(cells, into, cells, of, run)
