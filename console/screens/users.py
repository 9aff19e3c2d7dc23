"""Users: who waits to be let in stands first; then everybody, and what an administrator does with them.

Rule: an action is about the row of the key press: by code or address, with the version that was seen. What came of it
is seen when the daemon's event comes back, never painted before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import msgspec
from textual.binding import Binding, BindingType

from common import protocol
from common.protocol import (
    UsersApprove,
    UsersDiscard,
    UsersNotes,
    UsersRole,
    UserTarget,
)
from console.columns import Cell, Column
from console.mirror import Row, cleaned
from console.moments import age
from console.palette import DIM, GOOD, PLAIN, WARNING
from console.screens.table_page import TablePage
from console.screens.user_actions import create_user, delete_user, reset_password
from console.screens.user_details import how_to_register, role_of, user_lines, whole_user_lines
from console.widgets.facts import PANE, paragraphs
from console.widgets.lines import Line

_STYLES = {"pending": WARNING, "active": GOOD, "disabled": DIM}


def _is_user(email: str, _: str, row: Row) -> bool:
    return bool(row["email"] == email and not row["code"])


def _dimmed(row: Row, text: str) -> Cell:
    return (text, DIM) if row["status"] == "disabled" else text


def _notes(row: Row) -> Cell:
    if row["code"]:
        return f"{row['code']} {row['address']}", WARNING
    said = "must set a password" if row["must_change_password"] else ""
    return (said, DIM) if not row["notes"] else _dimmed(row, " · ".join(each for each in (row["notes"], said) if each))


class UsersPage(TablePage):
    """Everybody, those who wait first."""

    NOUN = "users"
    SORT = "USER"
    KINDS = ("user", "registration")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Details"),
        Binding("a", "approve", "Approve"),
        Binding("x", "discard", "Refuse"),
        Binding("d", "disable", "Disable"),
        Binding("e", "enable", "Enable"),
        Binding("c", "create", "Create"),
        Binding("R", "reset", "Reset password"),
        Binding("o", "role", "Role"),
        Binding("n", "notes", "Notes"),
        Binding("i", "issue", "Issue a key"),
        Binding("l", "limits", "Limits"),
        Binding("D", "delete", "Delete"),
    ]

    def __init__(self) -> None:
        self.COLUMNS = (
            Column("STATE", lambda row: (row["status"], _STYLES.get(row["status"], PLAIN)), 8),
            Column("RUN", self._run, 3, right=True, rank=3, sort=lambda row: self._runs[row["email"]], descending=True),
            Column("USER", lambda row: _dimmed(row, row["email"]), 21, most=60, sort=lambda row: row["email"]),
            Column("ROLE", lambda row: _dimmed(row, "" if row["code"] else role_of(row)), 7, rank=1),
            Column(
                "KEYS",
                lambda row: _dimmed(row, "" if row["code"] else str(self._keys[row["email"]])),
                4,
                right=True,
                rank=2,
                sort=lambda row: self._keys[row["email"]],
                descending=True,
            ),
            Column("SINCE", self._age, 5, right=True, sort=lambda row: row["created"], descending=True),
            Column("CODE, FROM / NOTES", _notes, 21, most=60),
        )
        super().__init__()
        self._runs: Counter[str] = Counter()
        self._keys: Counter[str] = Counter()  # that are good; a user's row does not change with them
        self._counted = -1

    def _run(self, row: Row) -> Cell:
        running = self._runs[row["email"]]
        return (str(running), GOOD) if running else ""

    def _age(self, row: Row) -> Cell:
        text = age(row["created"], self.lodge.now())
        return (text, WARNING) if row["code"] else _dimmed(row, text)

    def rows(self) -> Mapping[str, Row]:
        mirror = self.lodge.link.mirror
        return mirror.rows["registration"] | mirror.rows["user"]

    def version(self) -> Any:
        return super().version(), self.lodge.address  # which is what those without an account are told

    def group(self, row: Row) -> Any:
        return 0 if row["code"] else 1

    def tick(self) -> None:
        # Counted each time, and no reason to sort everybody anew: the cells in sight read it.
        mirror = self.lodge.link.mirror
        self._runs = Counter(row["user"] for row in mirror.rows["live"].values())
        if self._counted != mirror.changes["key"]:
            self._counted = mirror.changes["key"]
            good = (key for key in mirror.rows["key"].values() if key["state"] in ("active", "suspended"))
            self._keys = Counter(key["user"] for key in good)
        super().tick()

    def offers(self) -> Sequence[str]:
        row = self.chosen[1] if self.chosen else None
        if row is None:
            return ("create",)
        if row["code"]:
            return ("open", "approve", "discard", "create")
        reset = () if row["service"] else ("reset",)
        rest = ("create", "issue", "limits", "notes", "role")
        if row["status"] == "active":
            return ("open", "disable", *reset, *rest)
        return ("open", "enable", "delete", *rest, *reset)

    def nothing(self) -> Sequence[str]:
        return how_to_register(
            self.lodge.address, "They appear here with a code: a lets them in. Or press c to create a user."
        )

    def advice(self) -> Sequence[str]:
        people = sum(not row["service"] for row in self.lodge.link.mirror.rows["user"].values())
        waits = self.lodge.link.mirror.rows["registration"]
        return () if people > 1 or waits or self.filter_text else self.nothing()

    def detail(self, row: Row) -> Sequence[Line]:
        return user_lines(row, self._keys_of(row), self._runs[row["email"]], self.lodge.now(), room=PANE)

    def _keys_of(self, row: Row) -> list[Row]:
        keys = self.lodge.link.mirror.rows["key"].values()
        return sorted((key for key in keys if key["user"] == row["email"]), key=lambda key: key["state"] != "active")

    # -- keys: what is undone by another key ---------------------------------------------------------------------------

    def action_open(self) -> None:
        if self.chosen and self.is_meant():
            self.begin(self._open(self.chosen[1]))

    async def _open(self, row: Row) -> None:
        running, now = self._runs[row["email"]], self.lodge.now()
        if row["code"]:
            lines = user_lines(row, [], 0, now)
        else:
            answer = await self.ask(protocol.USERS_SHOW, UserTarget(row["email"]))
            if answer is None:
                return
            found = cleaned(msgspec.to_builtins(answer))
            lines = whole_user_lines(found["user"], found["keys"], found["limits"], running, now)
        await self.lodge.show_text(row["email"], paragraphs(lines))

    def action_approve(self) -> None:
        self._on_pending(self._approve, "is a user already")

    def action_discard(self) -> None:
        self._on_pending(self._discard, "is a user: d disables, and a disabled user can be deleted with D")

    def _on_pending(self, work: Any, otherwise: str) -> None:
        if self.chosen and self.may_act():
            row = self.chosen[1]
            if row["code"]:
                self.begin(work(row))
            else:
                self.say(f"{row['email']} {otherwise}")

    async def _approve(self, row: Row) -> None:
        email, code = row["email"], row["code"]
        since = age(row["created"], self.lodge.now())
        waiting = self.lodge.link.mirror.rows["registration"].values()
        others = sorted(each["code"] for each in waiting if each["email"] == email and each["code"] != code)
        if others:
            sure = await self.lodge.confirm(
                f"Let {email} in, with the code {code}?",
                [
                    f"This address was registered {len(others) + 1} times: only one of them may be theirs.",
                    f"Ask them for their code. This one came from {row['address']}, {since} ago.",
                    ("The password of this registration becomes theirs; refused are: " + ", ".join(others), WARNING),
                ],
            )
        else:
            sure = await self.lodge.ask_yes(f"Let {email} in (code {code}, from {row['address']}, {since} ago)?")
        if not sure:
            return
        self.follow(partial(_is_user, email))  # the registration goes, a user comes
        if await self.ask(protocol.USERS_APPROVE, UsersApprove(code)) is not None:
            self.say(f"{email} is approved and may log in", "good")
        else:
            self.follow(None)

    async def _discard(self, row: Row) -> None:
        code, email = row["code"], row["email"]
        sure = await self.lodge.ask_yes(f"Refuse the registration {code} of {email}?")
        if sure and await self.ask(protocol.USERS_DISCARD, UsersDiscard(code)) is not None:
            self.say(f"{code} of {email} is refused; the address may register again")

    def _on_user(self, work: Any, *, wrong: Mapping[str, str] | None = None) -> None:
        """Begin `work` with the row under the cursor, if that is a user in a state where it makes sense."""
        if self.chosen and self.may_act():
            row = self.chosen[1]
            said = "waits to be let in: a approves, x refuses" if row["code"] else (wrong or {}).get(row["status"], "")
            if said:
                self.say(f"{row['email']} {said}")
            else:
                self.begin(work(row))

    def action_disable(self) -> None:
        self._on_user(self._disable, wrong={"disabled": "is disabled already; e enables"})

    async def _disable(self, row: Row) -> None:
        email = row["email"]
        running = sum(live["user"] == email for live in self.lodge.link.mirror.rows["live"].values())
        cut = "" if not running else " 1 request ends now." if running == 1 else f" {running} requests end now."
        if await self.lodge.ask_yes(f"Disable {email}?{cut} Sessions end, keys are suspended."):
            target = UserTarget(email, version=row["version"])
            if await self.ask(protocol.USERS_DISABLE, target) is not None:
                self.say(f"{email} is disabled", "good")

    def action_enable(self) -> None:
        self._on_user(self._enable, wrong={"active": "is active already; d disables"})

    async def _enable(self, row: Row) -> None:
        email = row["email"]
        sure = await self.lodge.ask_yes(f"Enable {email}? Password and keys work again.")
        if sure and await self.ask(protocol.USERS_ENABLE, UserTarget(email, version=row["version"])) is not None:
            self.say(f"{email} is enabled", "good")

    def action_role(self) -> None:
        self._on_user(self._role)

    async def _role(self, row: Row) -> None:
        email = row["email"]
        role: protocol.Role = "user" if row["role"] == "admin" else "admin"
        question = (
            f"Make {email} an admin? They may then pull, create and delete models over HTTP."
            if role == "admin"
            else f"Make {email} an ordinary user again? They may no longer change models over HTTP."
        )
        change = UsersRole(email, role, version=row["version"])
        if await self.lodge.ask_yes(question) and await self.ask(protocol.USERS_ROLE, change) is not None:
            self.say(f"{email} is now {role}", "good")

    def action_notes(self) -> None:
        self._on_user(self._note)

    async def _note(self, row: Row) -> None:
        typed = await self.lodge.prompt.ask_line(f"Notes on {row['email']}: ", row["notes"])
        if typed is not None and typed.strip() != row["notes"]:
            note = UsersNotes(row["email"], typed.strip(), version=row["version"])
            if await self.ask(protocol.USERS_NOTES, note) is not None:
                self.say(f"the notes on {row['email']} are kept", "good")

    # -- keys: to other pages ------------------------------------------------------------------------------------------

    def action_issue(self) -> None:
        self._on_user(self._issue)

    async def _issue(self, row: Row) -> None:
        from console.screens.key_forms import issue_key
        from console.screens.keys import KeysPage

        page = await self.lodge.go_to("keys")
        if isinstance(page, KeysPage):
            await issue_key(page, row["email"])  # as a part of this action: a second one could not begin yet

    def action_limits(self) -> None:
        self._on_user(self._limits)

    async def _limits(self, row: Row) -> None:
        from console.screens.limits import LimitsPage

        page = await self.lodge.go_to("limits")
        if isinstance(page, LimitsPage):
            page.look_at(f"user:{row['email']}")

    # -- keys: what cannot be undone -----------------------------------------------------------------------------------

    def action_create(self) -> None:
        if self.may_change():
            self.begin(self._create())

    async def _create(self) -> None:
        await create_user(self, made=lambda email: self.follow(partial(_is_user, email), made=True))

    def action_reset(self) -> None:
        self._on_user(partial(reset_password, self))

    def action_delete(self) -> None:
        self._on_user(
            partial(delete_user, self), wrong={"active": "is active: only a disabled user can be deleted (d disables)"}
        )
