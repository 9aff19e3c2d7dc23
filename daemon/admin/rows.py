"""What lives in the daemon, as the rows of `common/protocol.py`. Pure; no secret passes through here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from common.protocol import (
    LIMIT_FIELDS,
    KeyRow,
    KeyState,
    LimitRow,
    LimitUse,
    LimitValues,
    LiveRow,
    Unlimited,
    UpstreamRow,
    UserRow,
)
from common.times import iso, iso_or_none
from daemon.clock import MICROSECONDS
from daemon.exchange import Exchange
from daemon.providers.upstream import Upstream
from daemon.store.keys import Key
from daemon.store.registrations import Registration
from daemon.store.users import User
from daemon.traffic.admission import LimitUse as Use
from daemon.traffic.limits import TargetLimits
from daemon.traffic.rules import DEFAULT

if TYPE_CHECKING:
    from daemon.house import House


def user_row(house: House, user: User) -> UserRow:
    """A user."""
    now_us = house.clock.wall()
    return UserRow(
        id=user.id,
        email=user.email,
        status=user.status,
        role=user.role,
        service=user.service,
        code=None,
        address=None,
        created=iso(user.created_us),
        approved=iso_or_none(user.approved_us),
        must_change_password=user.must_change,
        keys=sum(key.is_live(now_us) for key in house.directory.keys_of(user.id)),
        notes=user.notes,
        version=user.version,
        inline_auth=user.inline_auth,
        cloud=user.cloud,
    )


def pending_row(entry: Registration) -> UserRow:
    """An entry that waits for approval."""
    return UserRow(
        id=None,
        email=entry.email,
        status="pending",
        role="user",
        service=False,
        code=entry.code,
        address=entry.address,
        created=iso(entry.created_us),
        approved=None,
        must_change_password=False,
        keys=0,
        notes="",
        version=0,
    )


def key_row(house: House, key: Key) -> KeyRow:
    """An API key, without its secret."""
    now_us = house.clock.wall()
    user = house.directory.users.get(key.user_id)
    in_grace = key.previous_until_us is not None and now_us < key.previous_until_us
    return KeyRow(
        id=key.id,
        user=user.email if user is not None else "",
        label=key.label,
        state=_key_state(key, user, now_us),
        purpose=key.purpose,
        models=list(key.models),
        addresses=list(key.addresses),
        created=iso(key.created_us),
        expires=iso_or_none(key.expires_us),
        revoked=iso_or_none(key.revoked_us),
        previous_until=iso_or_none(key.previous_until_us) if in_grace else None,
        last_used=iso_or_none(key.last_used_us),
        last_address=key.last_address or None,
        version=key.version,
        in_path=key.in_path,
        imported=key.imported_hash is not None,
    )


def _key_state(key: Key, user: User | None, now_us: int) -> KeyState:
    if key.revoked_us is not None:
        return "revoked"
    if not key.is_live(now_us):
        return "expired"
    return "active" if user is not None and user.status == "active" else "suspended"


def limit_row(house: House, limits: TargetLimits) -> LimitRow:
    """A target's limits and their use; what it does not say itself is None, unlimited is a word."""
    effective, own = limits.effective, limit_values(limits.own)
    # Every user is under `default` by itself: as a target, nobody uses it.
    is_default = limits.target == DEFAULT
    uses = [] if is_default else house.admission.in_use(limits.target)
    return LimitRow(
        target=limits.target,
        effective=None if effective is None else limit_values(effective),
        configured=limit_values(house.limits.configured) if is_default else msgspec.UNSET,
        use=[limit_use(house, use) for use in uses],
        **{name: getattr(own, name) for name in LIMIT_FIELDS},
    )


def limit_values(values: Mapping[str, int | None]) -> LimitValues:
    """Some of the six limits; None as a value is unlimited, what is not there is not said."""
    return LimitValues(**{name: _amount(value) for name, value in values.items()})


def limit_use(house: House, use: Use) -> LimitUse:
    """How much of a limit is used."""
    frees_at = None
    if use.frees_at is not None and use.used:
        frees_at = iso(house.clock.wall() + use.frees_at - house.clock.now())
    return LimitUse(target=use.target, limit=use.limit, used=use.used, max=use.max, frees_at=frees_at)


def fullest_first(uses: Iterable[Use]) -> list[Use]:
    """Sorted by the part that is used; a limit of nothing is full."""
    return sorted(uses, key=lambda use: (-(use.used / use.max if use.max else 1.0), use.target, use.limit))


def _amount(value: int | None) -> int | Unlimited:
    return "unlimited" if value is None else value


def look_at_pace(house: House) -> None:
    """See how far the running answers have come; before their rows are made."""
    wall, gate = house.clock.wall(), house.gate
    house.pace.look(
        asyncio.get_running_loop().time(),
        (
            (exchange.request_id, max(0, wall - exchange.first_byte) / MICROSECONDS, gate.pieces(exchange.request_id))
            for exchange in gate.live()
            if exchange.first_byte is not None
        ),
    )


def live_row(house: House, exchange: Exchange) -> LiveRow:
    """An exchange as it runs or waits. One whose end is on its way to the journal looks as it did before."""
    request_id, waits = exchange.request_id, exchange.seated is None
    silent, wait = house.gate.silent_for(request_id), exchange.estimated_wait() if waits else None
    return LiveRow(
        request_id=request_id,
        state="queued" if waits else "prefill" if exchange.first_byte is None else "run",
        position=exchange.position(),
        user=exchange.user,
        key=exchange.key_id,
        client_label=exchange.client_label,
        address=exchange.address,
        route=exchange.route,
        model=exchange.model,
        upstream=exchange.upstream,
        stream=exchange.stream,
        received=iso(exchange.received),
        seated=iso_or_none(exchange.seated),
        first_byte=iso_or_none(exchange.first_byte),
        chunks_out=exchange.chunks_out,
        bytes_out=exchange.bytes_out,
        tokens_out=house.gate.pieces(request_id),
        tokens_per_second=house.pace.of(request_id),
        piece_age=None if silent is None else round(silent, 1),
        estimated_wait=None if wait is None else round(wait, 1),
    )


def number_of(entry: Mapping[str, object], name: str) -> int | None:
    """A whole number that a foreign document may have under that name."""
    value = entry.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def upstream_row(upstream: Upstream) -> UpstreamRow:
    """An upstream as it is now."""
    loaded = upstream.loaded
    return UpstreamRow(
        name=upstream.name,
        kind=upstream.kind,
        url=upstream.url,
        state=upstream.state,
        error=upstream.error if upstream.state == "down" else None,
        version=upstream.version,
        seats=upstream.seats.size,
        running=upstream.seats.running,
        queued=upstream.seats.waiting,
        models=None if upstream.models is None else len(upstream.models),
        probed_seats=upstream.probed_seats,
        drained=upstream.seats.draining,
        latency_ms=None if upstream.latency is None else round(upstream.latency * 1000, 1),
        last_error=upstream.error or None,
        loaded=None if loaded is None else len(loaded),
        vram=None if loaded is None else sum(number_of(entry, "size_vram") or 0 for entry in loaded),
        cloud=upstream.cloud,
        enabled=upstream.enabled,
        has_key=upstream.has_key,
        resting=upstream.resting(),
    )
