"""What is done to a user behind a box or a form: create, reset the password, delete.

Rule: as in `users.py`; a one-time password is shown once, and kept nowhere here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from common import protocol
from common.protocol import JobsExport, UsersAdd, UserTarget
from common.untrusted import clean
from console import entries
from console.client import Refused, Unreachable
from console.mirror import Row
from console.palette import BAD
from console.screens.page import Page, why
from console.screens.secret_boxes import show_password
from console.widgets.form import Field

_KINDS = ("person", "service")
_ROLES = ("user", "admin")


async def create_user(page: Page, *, made: Callable[[str], None]) -> None:
    """Ask who it is, create them; `made` hears the address before anything else is shown."""
    taken = {row["email"] for row in page.lodge.link.mirror.rows["user"].values()}

    def free(text: str) -> str:
        return "is a user already" if text.casefold() in taken else entries.an_address(text)

    fields = [
        Field("email", "E-mail", check=free),
        Field("kind", "Person or service", "person", hint="a service has keys only", choices=_KINDS, fixed=True),
        Field("role", "Role", "user", hint="admin: models over HTTP", choices=_ROLES, fixed=True),
    ]

    async def add(typed: dict[str, str]) -> protocol.UserAdded:
        role: protocol.Role = "admin" if typed["role"] == "admin" else "user"
        question = UsersAdd(typed["email"], role=role, service=typed["kind"] == "service")
        return await page.attempt(protocol.USERS_ADD, question)

    added = await page.fill_until_done("Create a user", fields, [], add)
    if added is None:
        return
    email = clean(added.email)
    made(email)
    page.tick()
    if added.one_time_password is None:
        page.say(f"{email} is created; i issues it a key", "good")
    else:
        page.say(f"{email} is created", "good")
        await show_password(page.lodge, email, added.one_time_password, added.one_time_expires)


async def reset_password(page: Page, row: Row) -> None:
    email = row["email"]
    if row["service"]:
        page.say(f"{email} is a service account: it has keys, no password")
        return
    consequences = [
        "The password no longer works, every session ends, and what runs in one is cut.",
        "API keys go on working.",
        "You get a one-time password to hand over: good for a day, and only for setting a new one.",
    ]
    if not await page.lodge.confirm(f"Reset the password of {email}?", consequences):
        return
    answer = await page.ask(protocol.USERS_RESET_PASSWORD, UserTarget(email, version=row["version"]))
    if answer is not None:
        await show_password(page.lodge, email, answer.one_time_password, answer.one_time_expires)


async def delete_user(page: Page, row: Row) -> None:
    email = row["email"]
    consequences = [
        f"Erased for good: every prompt and answer of {email}, password, keys, limits.",
        "The journal's skeleton stays: who asked what model when, and its place in the chain.",
        "It is refused until everything of theirs is in a verified export.",
    ]
    if not await page.lodge.confirm_by_name(f"Delete {email}?", consequences, email):
        return
    try:
        await page.attempt(protocol.USERS_DELETE, UserTarget(email, version=row["version"]))
    except Refused as refused:
        if refused.code == "not_exported" and "export" in refused.detail:
            await _export_first(page, email, refused)
        else:
            page.say(why(refused), "bad")
    except Unreachable as error:
        page.say(why(error), "bad")
    else:
        page.say(f"{email} is deleted", "good")


async def _export_first(page: Page, email: str, refused: Refused) -> None:
    reason = str(refused).partition(";")[0]
    offer = "Export everything of theirs now? The daemon does it, also when you leave; page Jobs shows how far it is."
    if not await page.lodge.confirm(f"{email} was not deleted", [(reason + ".", BAD), "", offer]):
        return
    try:
        question = msgspec.convert(refused.detail["export"], JobsExport)
    except msgspec.ValidationError:
        page.say("the daemon offers an export that this console cannot read; see `gatelodge audit export`", "bad")
        return
    job = await page.ask(protocol.JOBS_EXPORT, question)
    if job is not None:
        page.say(f"job {job.id} exports everything of {email}; when it is done, D deletes", "good")
        page.begin(_await_export(page, email, str(job.id)), group="export")


async def _await_export(page: Page, email: str, job_id: str) -> None:
    """Say when the export is done: deleting is then one more try."""
    while True:
        job = page.lodge.link.mirror.rows["job"].get(job_id)
        if job is not None and job["state"] not in ("queued", "running"):
            break
        await asyncio.sleep(0.5)
    if job["state"] == "done":
        page.say(f"everything of {email} is exported (job {job_id}): D deletes now", "good")
    else:
        page.say(f"the export of {email} {job['state']}: {job['error'] or f'see job {job_id}'}", "bad")
