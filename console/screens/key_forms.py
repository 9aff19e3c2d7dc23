"""What is asked before a key is issued or rotated, and the box that shows its secret, once.

Rule: the secret goes from the daemon's answer into that box (`secret_boxes.py`); nobody keeps it.
"""

from __future__ import annotations

from common import protocol, times
from common.protocol import KeysIssue, KeysRotate
from common.untrusted import clean
from console import entries
from console.mirror import Row
from console.moments import day_and_time
from console.screens.secret_boxes import after_rotation, show_key
from console.screens.table_page import TablePage
from console.widgets.form import Field


def _lifetime(text: str) -> str:
    """The hint beside an expiry."""
    if not text:
        return "90d, 12h; empty: never"
    return f"{times.seconds_of(text) // 86400} days" if times.seconds_of(text) >= 2 * 86400 else ""


def issue_fields(email: str, users: list[str]) -> list[Field]:
    """The form of a new key."""
    return [
        Field("user", "For the user", email, hint="→ completes", check=entries.one_of(users, "user"), choices=users),
        Field("label", "Label", hint="what it is for", check=entries.a_label),
        Field("expires", "Expires after", hint=_lifetime, check=entries.an_expiry),
        Field("models", "Models", hint="llama3* qwen3; empty: all", check=entries.patterns),
        Field("addresses", "From addresses", hint="10.0.0.0/8; empty: any", check=entries.networks),
        Field("metrics", "For /metrics alone", "no", hint="no or yes", choices=entries.NO_OR_YES, fixed=True),
    ]


def key_question(typed: dict[str, str]) -> KeysIssue:
    """What the form asks for."""
    return KeysIssue(
        typed["user"].casefold(),
        typed["label"],
        expires_seconds=times.seconds_of(typed["expires"]) if typed["expires"] else None,
        models=entries.words(typed["models"]),
        addresses=entries.words(typed["addresses"]),
        metrics=entries.is_yes(typed["metrics"]),
    )


async def issue_key(page: TablePage, email: str) -> None:
    """Ask, issue, show."""
    users = sorted(row["email"] for row in page.lodge.link.mirror.rows["user"].values())
    if not users:
        page.say("there is no user to issue a key to: press 2, and let somebody in or create one")
        return

    async def issue(typed: dict[str, str]) -> tuple[KeysIssue, protocol.IssuedKey]:
        question = key_question(typed)
        return question, await page.attempt(protocol.KEYS_ISSUE, question)

    done = await page.fill_until_done("Issue a key", issue_fields(email, users), [], issue)
    if done is not None:
        question, issued = done
        page.follow(lambda key_id, _: key_id == issued.id, made=True)
        page.tick()
        heading = f"The key {clean(issued.id)} ({clean(question.label)}) of {clean(question.user)}"
        await show_key(page.lodge, heading, issued.id, issued.key, "")
        page.say(f"key {clean(issued.id)} is issued to {clean(question.user)}", "good")


async def rotate_key(page: TablePage, key: Row) -> None:
    """Ask how long the old secret works on, rotate, show."""
    key_id, label, user = key["id"], key["label"], key["user"]
    paragraphs = [
        "The key gets a new secret, shown once. Label, expiry, models and addresses stay.",
        "The old secret works on for the time of grace, so that whoever uses it can change over.",
    ]
    if key["previous_until"]:
        paragraphs.append(
            f"It was rotated a short while ago: the secret before that one, good until "
            f"{day_and_time(key['previous_until'])}, ends now."
        )
    fields = [Field("grace", "Grace", "1h", hint=_grace_hint, check=entries.a_grace)]

    async def rotate(typed: dict[str, str]) -> protocol.RotatedKey:
        seconds = times.seconds_of(typed["grace"])
        return await page.attempt(
            protocol.KEYS_ROTATE, KeysRotate(key_id, grace_seconds=seconds, version=key["version"])
        )

    rotated = await page.fill_until_done(f"Rotate the key {key_id} ({label}) of {user}?", fields, paragraphs, rotate)
    if rotated is not None:
        heading = f"The new key {key_id} ({label}) of {user}"
        await show_key(page.lodge, heading, key_id, rotated.key, after_rotation(rotated.previous_until))
        page.say(f"key {key_id} of {user} is rotated", "good")


def _grace_hint(text: str) -> str:
    return "0: the old secret ends at once" if times.seconds_of(text) == 0 else "then the old secret ends"
