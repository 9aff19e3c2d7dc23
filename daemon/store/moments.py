"""The last committed moment of the gateway's clock: every transaction carries one, so that time goes on from there."""

from __future__ import annotations

import sqlite3

from daemon.clock import Moment


def last_moment(conn: sqlite3.Connection) -> Moment | None:
    """The moment of the last commit; None in a new store."""
    row = conn.execute("SELECT boot_id, now_us, wall_us, boottime_us FROM clock WHERE id = 1").fetchone()
    return None if row is None else Moment(*row)


def keep_moment(conn: sqlite3.Connection, moment: Moment) -> None:
    """Make `moment` the last one."""
    conn.execute(
        "INSERT INTO clock (id, boot_id, now_us, wall_us, boottime_us) VALUES (1, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET boot_id = excluded.boot_id, now_us = excluded.now_us,"
        " wall_us = excluded.wall_us, boottime_us = excluded.boottime_us",
        (moment.boot_id, moment.now, moment.wall, moment.boottime),
    )
