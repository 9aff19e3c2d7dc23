"""What an administrator did that changes no row of its own: recorded in the audit before it is done or shown."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from daemon.access.actor import Actor
from daemon.store.journal import append_admin

if TYPE_CHECKING:
    from daemon.house import House


async def record(
    house: House,
    actor: Actor,
    verb: str,
    target: str,
    detail: dict[str, Any] | None = None,
    *,
    user_id: int | None = None,
) -> None:
    """Durable when it returns; Unavailable where it cannot be recorded, and then it must not be done."""
    await house.database.write(
        partial(
            append_admin,
            actor=actor,
            verb=verb,
            target=target,
            detail=detail or {},
            at_us=house.clock.wall(),
            clock_us=house.clock.now(),
            user_id=user_id,
        )
    )
