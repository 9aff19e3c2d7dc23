"""Verbs about users. Every change is the directory's: one transaction with its audit record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.protocol import (
    OneTimePassword,
    UserAdded,
    UserDeleted,
    UserDetail,
    UserDiscarded,
    UserRow,
    UsersAdd,
    UsersApprove,
    UsersCloud,
    UsersDiscard,
    UsersInlineAuth,
    UsersList,
    UsersNotes,
    UsersRole,
    UserTarget,
)
from common.times import iso_or_none
from daemon.access.actor import Actor
from daemon.admin.rows import key_row, limit_row, pending_row, user_row

if TYPE_CHECKING:
    from daemon.house import House


async def listed(house: House, _: Actor, request: UsersList) -> list[UserRow]:
    """Everybody, those who wait for approval first."""
    rows = [pending_row(entry) for entry in house.directory.registrations.values()]
    rows += [user_row(house, user) for user in sorted(house.directory.users.values(), key=lambda user: user.email)]
    return [row for row in rows if request.status is None or row.status == request.status]


async def shown(house: House, _: Actor, request: UserTarget) -> UserDetail:
    """One user with keys and limits."""
    user = house.directory.user_named(request.user)
    return UserDetail(
        user=user_row(house, user),
        keys=[key_row(house, key) for key in house.directory.keys_of(user.id)],
        limits=limit_row(house, house.limits.show(f"user:{user.email}")[0]),
    )


async def add(house: House, actor: Actor, request: UsersAdd) -> UserAdded:
    """A new, approved user with a one-time password; a service account has none."""
    user, password = await house.directory.add_user(actor, request.email, request.role, request.service)
    return UserAdded(
        id=user.id,
        email=user.email,
        role=user.role,
        service=user.service,
        one_time_password=password,
        one_time_expires=iso_or_none(user.one_time_expires_us),
    )


async def approve(house: House, actor: Actor, request: UsersApprove) -> UserRow:
    """Make a pending entry a user."""
    return user_row(house, await house.directory.approve(actor, request.who))


async def discard(house: House, actor: Actor, request: UsersDiscard) -> UserDiscarded:
    """Refuse one pending entry."""
    entry = await house.directory.discard(actor, request.code)
    return UserDiscarded(code=entry.code, email=entry.email, discarded=True)


async def disable(house: House, actor: Actor, request: UserTarget) -> UserRow:
    """Sessions end, running requests are cut, keys are suspended."""
    user = house.directory.user_named(request.user)
    return user_row(house, await house.directory.disable(actor, user.id, request.version))


async def enable(house: House, actor: Actor, request: UserTarget) -> UserRow:
    """The user counts again."""
    user = house.directory.user_named(request.user)
    return user_row(house, await house.directory.enable(actor, user.id, request.version))


async def reset_password(house: House, actor: Actor, request: UserTarget) -> OneTimePassword:
    """Replace the password by a one-time one."""
    user = house.directory.user_named(request.user)
    password = await house.directory.reset_password(actor, user.id, request.version)
    changed = house.directory.users[user.id]
    return OneTimePassword(
        id=changed.id,
        email=changed.email,
        one_time_password=password,
        one_time_expires=iso_or_none(changed.one_time_expires_us),
    )


async def set_role(house: House, actor: Actor, request: UsersRole) -> UserRow:
    """User or administrator."""
    user = house.directory.user_named(request.user)
    return user_row(house, await house.directory.set_role(actor, user.id, request.role, request.version))


async def set_notes(house: House, actor: Actor, request: UsersNotes) -> UserRow:
    """What administrators want to remember."""
    user = house.directory.user_named(request.user)
    return user_row(house, await house.directory.set_notes(actor, user.id, request.notes, request.version))


async def set_inline_auth(house: House, actor: Actor, request: UsersInlineAuth) -> UserRow:
    """Whether a password in the body of `POST /chat` counts for the user."""
    user = house.directory.user_named(request.user)
    return user_row(house, await house.directory.set_inline_auth(actor, user.id, request.allowed, request.version))


async def set_cloud(house: House, actor: Actor, request: UsersCloud) -> UserRow:
    """Whether requests of the user may leave the LAN."""
    user = house.directory.user_named(request.user)
    return user_row(house, await house.directory.set_cloud(actor, user.id, request.allowed, request.version))


async def delete(house: House, actor: Actor, request: UserTarget) -> UserDeleted:
    """Erase the user; refused unless disabled and exported."""
    user = house.directory.user_named(request.user)
    gone = await house.directory.delete_user(actor, user.id, request.version)
    target = f"user:{gone.email}"
    if any(each.target == target for each in house.limits.show()):
        # Else whoever registers that address one day would inherit them.
        await house.limits.clear(actor, target)
    return UserDeleted(id=gone.id, email=gone.email, deleted=True)
