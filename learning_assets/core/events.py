"""Closed trades and their actions as columns, the form in which the engine works on them.

Trades stand in closing order (then by id); actions stand in the order of their trades. What a
slice is and what it earns is computed in `core.mining`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from learning_assets.core.records import GroupKey

ABSENT = 0
"""Code of a scope dimension that an action does not have."""

_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True, slots=True)
class EventTable:
    """Trades and actions as columns.

    Trades (length T, in closing order): `trade_ids`, `closed_at` and `opened_at`
    (datetime64[us], UTC, NaT where unknown), `rr` (R), `payback_hours` and `hold_hours`
    (NaN where unknown). Actions (length A): `trade` (index of its trade, ascending),
    `group` (index into `groups`) and `codes` (dimensions × A, of any integer type; 0 is absent, v
    stands for `values[dimension][v - 1]`).
    """

    trade_ids: NDArray[np.object_]
    closed_at: NDArray[np.datetime64]
    opened_at: NDArray[np.datetime64]
    rr: NDArray[np.float64]
    payback_hours: NDArray[np.float64]
    hold_hours: NDArray[np.float64]
    trade: NDArray[np.int64]
    group: NDArray[np.int64]
    groups: tuple[GroupKey, ...]
    dims: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    codes: NDArray[np.integer[Any]]

    @property
    def n_trades(self) -> int:
        """Number of distinct trades."""
        return len(self.trade_ids)

    @property
    def n_events(self) -> int:
        """Number of actions."""
        return len(self.trade)

    @property
    def day(self) -> NDArray[np.int64]:
        """UTC closing day of each trade, in days since 1970."""
        return self.closed_at.astype("datetime64[D]").astype(np.int64)

    def where(self, keep: NDArray[np.bool_]) -> EventTable:
        """The trades for which `keep` (length T) holds, with their actions.

        Groups and dimensions that none of them has are gone: nothing is known of them then.
        """
        new_index = np.cumsum(keep) - 1
        actions = keep[self.trade]
        used, group = np.unique(self.group[actions], return_inverse=True)
        codes = self.codes[:, actions]
        present = np.flatnonzero(codes.any(axis=1))
        return EventTable(
            self.trade_ids[keep],
            self.closed_at[keep],
            self.opened_at[keep],
            self.rr[keep],
            self.payback_hours[keep],
            self.hold_hours[keep],
            new_index[self.trade[actions]],
            group.reshape(-1).astype(np.int64),
            tuple(self.groups[i] for i in used),
            tuple(self.dims[d] for d in present),
            tuple(self.values[d] for d in present),
            codes[present],
        )

    def window(self, as_of: datetime, look_back_days: float) -> EventTable:
        """The trades closed before `as_of` and not more than `look_back_days` earlier."""
        end = instant(as_of)
        start = end - np.timedelta64(int(look_back_days * 86_400_000_000), "us")
        return self.where((self.closed_at < end) & (self.closed_at >= start))

    def with_rr(self, rr: NDArray[np.float64]) -> EventTable:
        """The same events with other outcomes (length T, in R)."""
        names = self.__slots__
        fields = {name: getattr(self, name) for name in names}
        return EventTable(**{**fields, "rr": rr})


def instant(at: datetime) -> np.datetime64:
    """An aware time as a naive UTC datetime64[us]."""
    return np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us")


def moment(at: np.datetime64) -> datetime:
    """A naive UTC datetime64[us] as an aware time."""
    naive: datetime = at.astype("datetime64[us]").item()
    return naive.replace(tzinfo=UTC)


def _naive_utc(column: pd.Series) -> NDArray[np.datetime64]:
    return pd.to_datetime(column, utc=True).dt.tz_localize(None).to_numpy().astype("datetime64[us]")


def from_frame(frame: pd.DataFrame) -> EventTable:
    """Columns from a frame with one row per action, in any order.

    Columns: event_id, trade_id, module, pattern_key, action_category, scope (normalised
    mapping), rr, closed_at, opened_at, payback_hours, hold_hours. Rows of one trade agree on
    everything but the action. An empty frame gives an empty table.
    """
    rows = frame.sort_values(["closed_at", "trade_id", "event_id"], kind="stable")
    trade, first = _trade_index(rows["trade_id"].to_numpy(dtype=object))
    trades = rows.iloc[first]
    group, groups = _group_index(rows)
    dims, values, codes = _encode(rows["scope"].tolist())
    return EventTable(
        trades["trade_id"].to_numpy(dtype=object),
        _naive_utc(trades["closed_at"]),
        _naive_utc(trades["opened_at"]),
        trades["rr"].to_numpy(dtype=np.float64),
        trades["payback_hours"].to_numpy(dtype=np.float64),
        trades["hold_hours"].to_numpy(dtype=np.float64),
        trade,
        group,
        groups,
        dims,
        values,
        codes,
    )


def _trade_index(ids: NDArray[np.object_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    starts = np.ones(len(ids), dtype=bool)
    starts[1:] = ids[1:] != ids[:-1]
    return (np.cumsum(starts) - 1).astype(np.int64), np.flatnonzero(starts)


def _group_index(rows: pd.DataFrame) -> tuple[NDArray[np.int64], tuple[GroupKey, ...]]:
    keys = [
        GroupKey(*key)
        for key in zip(rows["module"], rows["pattern_key"], rows["action_category"], strict=True)
    ]
    groups = tuple(sorted(set(keys)))
    index = {key: i for i, key in enumerate(groups)}
    return np.fromiter((index[key] for key in keys), np.int64, len(keys)), groups


def _encode(
    scopes: list[dict[str, str]],
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...], NDArray[np.int32]]:
    dims = tuple(sorted({dim for scope in scopes for dim in scope}))
    codes = np.zeros((len(dims), len(scopes)), dtype=np.int32)
    values = []
    for d, dim in enumerate(dims):
        column = [scope.get(dim) for scope in scopes]
        known = tuple(sorted({value for value in column if value is not None}))
        code = {value: i + 1 for i, value in enumerate(known)}
        codes[d] = [ABSENT if value is None else code[value] for value in column]
        values.append(known)
    return dims, tuple(values), codes
