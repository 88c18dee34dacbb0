from __future__ import annotations

from datetime import UTC, datetime, timedelta

from learning_assets.core.records import GroupKey
from learning_assets.core.regime_weights import EVERY, RegimeWeights
from learning_assets.store.connection import Conn
from learning_assets.store.regime_weights import regime_weights, replace_regime_weights

MIDNIGHT = datetime(2024, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
GROUP = GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry")
POOLED = GroupKey("pm", EVERY, EVERY)


def _weights(group: GroupKey = POOLED, signature: str = "*", time: float = 1.0) -> RegimeWeights:
    return RegimeWeights(group, signature, time, 0.1 + 0.2, 1.7, 1.0, 33, 33 / 53)


def test_weights_come_back_as_they_were(conn: Conn) -> None:
    given = [
        _weights(),
        _weights(POOLED, "btc_macro=S1", 1.2),
        _weights(POOLED, "btc_macro=S1|alt_macro=?", 1.3),
        _weights(GROUP, "btc_macro=S1", 0.3),
    ]
    replace_regime_weights(conn, MIDNIGHT, given)
    found = regime_weights(conn, MIDNIGHT)
    assert found is not None
    assert found.as_of == MIDNIGHT
    assert list(found.rows) == given


def test_the_newest_that_are_not_later_count(conn: Conn) -> None:
    for days in (0, 2, 1):
        replace_regime_weights(conn, MIDNIGHT + days * DAY, [_weights(time=1.0 + days / 10)])
    for days, time in ((0, 1.0), (1.5, 1.1), (2, 1.2), (9, 1.2)):
        found = regime_weights(conn, MIDNIGHT + days * DAY)
        assert found is not None
        assert found.as_of == MIDNIGHT + min(int(days), 2) * DAY
        assert [row.time for row in found.rows] == [time]


def test_those_of_the_same_moment_are_replaced_and_others_stay(conn: Conn) -> None:
    replace_regime_weights(conn, MIDNIGHT - DAY, [_weights(time=0.5)])
    replace_regime_weights(conn, MIDNIGHT, [_weights(), _weights(GROUP)])
    replace_regime_weights(conn, MIDNIGHT, [_weights(time=1.4)])
    new, old = regime_weights(conn, MIDNIGHT), regime_weights(conn, MIDNIGHT - DAY)
    assert new is not None
    assert old is not None
    assert list(new.rows) == [_weights(time=1.4)]
    assert list(old.rows) == [_weights(time=0.5)]


def test_without_any_there_are_none(conn: Conn) -> None:
    assert regime_weights(conn, MIDNIGHT) is None
    replace_regime_weights(conn, MIDNIGHT, [_weights()])
    assert regime_weights(conn, MIDNIGHT - DAY) is None
    replace_regime_weights(conn, MIDNIGHT, [])
    assert regime_weights(conn, MIDNIGHT) is None
