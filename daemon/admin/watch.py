"""What the hub shows, and who tells it: the sources of its rows, and the ears at directory, gate and seats.

Rule: reading only. A row is made when a watcher's batch is due, never when something changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from common.protocol import LiveRow, Totals
from common.times import iso
from daemon.access.events import Change, Cut
from daemon.admin.rows import key_row, live_row, look_at_pace, pending_row, upstream_row, user_row
from daemon.exchange import Exchange
from daemon.hub import Source

if TYPE_CHECKING:
    from common.protocol import KeyRow, UpstreamRow, UserRow
    from daemon.house import House

MOST_JOBS = 100  # in a snapshot; `jobs/list` has them all


def feed(house: House) -> None:
    """Give the hub its sources. Once, before the admin socket opens; who publishes is wired in `daemon/app.py`."""
    hub, directory = house.hub, house.directory
    hub.sources["live"] = Source(
        rows=lambda: _live_rows(house),
        row=lambda request_id: _live_row(house, request_id),
        progress=lambda: _live_progress(house),
    )
    hub.sources["ended"] = Source(rows=house.recent.rows, row=house.recent.row, progress=house.recent.counts)
    hub.sources["user"] = Source(
        rows=lambda: [(str(user.id), user_row(house, user)) for user in directory.users.values()],
        row=lambda user_id: _user_row(house, user_id),
    )
    hub.sources["registration"] = Source(
        rows=lambda: [(entry.code, pending_row(entry)) for entry in directory.registrations.values()],
        row=lambda code: _pending_row(house, code),
    )
    hub.sources["key"] = Source(
        rows=lambda: [(key.id, key_row(house, key)) for key in directory.keys.values()],
        row=lambda key_id: _key_row(house, key_id),
    )
    hub.sources["upstream"] = Source(
        rows=lambda: _upstream_rows(house),
        row=lambda name: dict(_upstream_rows(house)).get(name),
        # Health and seats have no events: what a row says is compared each period instead.
        progress=lambda: {name: hash(repr(row)) for name, row in _upstream_rows(house)},
    )
    hub.sources["job"] = Source(
        rows=lambda: [(str(row.id), row) for row in house.keeping.jobs.rows(limit=MOST_JOBS)],
        row=lambda id_: house.keeping.jobs.row(int(id_)),
    )
    hub.totals = lambda: totals(house)
    directory.listeners.append(lambda event: _wake_keys(house, event))


def totals(house: House) -> Totals:
    """The head line: what runs and waits at all upstreams together."""
    look_at_pace(house)
    queued = [exchange for exchange in house.gate.live() if exchange.phase == "queued"]
    seats = [upstream.seats for upstream in house.registry.upstreams]
    return Totals(
        running=sum(each.running for each in seats),
        seats=sum(each.size for each in seats),
        queued=len(queued),
        oldest_queued=iso(min(exchange.received for exchange in queued)) if queued else None,
        tokens_per_second=house.pace.total(),
        refused_last_minute=house.recent.refused_last_minute,
        ended_lately=house.recent.ended_lately,
        errors_lately=house.recent.errors_lately,
    )


def _wake_keys(house: House, event: Change | Cut) -> None:
    """Keys are suspended and wake with their user."""
    if isinstance(event, Change) and event.kind == "user":
        for key in house.directory.keys_of(int(event.id)):
            house.hub.publish("key", key.id)


def _live_progress(house: House) -> dict[str, int]:
    """A number for each that moves when its row does without an event: pieces and their pace, or the place in line."""
    look_at_pace(house)
    return {exchange.request_id: _progress(house, exchange) for exchange in house.gate.live()}


def _progress(house: House, exchange: Exchange) -> int:
    if exchange.seated is None:
        # Its wait, too, which grows while nobody leaves: told anew when it is another by a tenth or so.
        return -(1000 * (exchange.position() or 0) + round(8 * math.log2(1 + (exchange.estimated_wait() or 0.0))))
    request_id = exchange.request_id
    # A pace that falls to nothing is news, too: the answer stalls.
    return house.gate.pieces(request_id) * 100_000 + round(10 * (house.pace.of(request_id) or 0.0)) % 100_000


def _live_rows(house: House) -> Iterable[tuple[str, LiveRow]]:
    look_at_pace(house)
    for exchange in house.gate.live():
        yield exchange.request_id, live_row(house, exchange)


def _live_row(house: House, request_id: str) -> LiveRow | None:
    """Until its end is recorded, and not only until there is one: then the row "ended" takes its place at once."""
    exchange = house.gate.find(request_id)
    return None if exchange is None else live_row(house, exchange)


def _user_row(house: House, user_id: str) -> UserRow | None:
    user = house.directory.users.get(int(user_id))
    return None if user is None else user_row(house, user)


def _pending_row(house: House, code: str) -> UserRow | None:
    entry = house.directory.registrations.get(code)
    return None if entry is None else pending_row(entry)


def _key_row(house: House, key_id: str) -> KeyRow | None:
    key = house.directory.keys.get(key_id)
    return None if key is None else key_row(house, key)


def _upstream_rows(house: House) -> list[tuple[str, UpstreamRow]]:
    return [(upstream.name, upstream_row(upstream)) for upstream in house.registry.upstreams]
