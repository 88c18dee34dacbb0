"""The events of a book as a frame of Python objects, row by row: the naive twin of the columns."""

from __future__ import annotations

from datetime import datetime

import pandas as pd

from learning_assets.store.connection import Conn
from learning_assets.store.tables import PATTERN_TRADE_EVENTS


def events_frame(conn: Conn, before: datetime, since: datetime | None = None) -> pd.DataFrame:
    """Columns as in the table, scope as a dict, times in UTC; one row per action, in order."""
    columns = PATTERN_TRADE_EVENTS.column_names
    rows = conn.execute(
        f"SELECT {', '.join(columns)} FROM pattern_trade_events "
        "WHERE closed_at < %s AND closed_at >= coalesce(%s, '-infinity'::timestamptz) "
        "ORDER BY closed_at, trade_id, event_id",
        [before, since],
    ).fetchall()
    frame = pd.DataFrame(rows, columns=list(columns))
    for column in PATTERN_TRADE_EVENTS.columns:
        if column.type == "timestamptz":
            times = pd.to_datetime(frame[column.name], utc=True)
            frame[column.name] = times.astype("datetime64[us, UTC]")
        elif column.type == "double precision":
            frame[column.name] = frame[column.name].astype("float64")
    return frame
