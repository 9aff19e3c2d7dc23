"""Keys: who has which, until when, last used when and from where; issue, rotate, revoke.

Rule: a secret is in one answer and in one box, once, and nowhere else in this program. Keys that are over are left out
until somebody asks for them; one that was revoked here stays in sight until one leaves the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from rich.style import Style
from textual.binding import Binding, BindingType

from common import protocol
from common.protocol import KeyTarget
from common.times import from_iso
from console.columns import Cell, Column
from console.mirror import Row
from console.moments import age, day_and_time, time_left
from console.palette import DIM, GOOD, PLAIN, WARNING
from console.screens.key_forms import issue_key, rotate_key
from console.screens.table_page import TablePage
from console.screens.user_details import key_state
from console.widgets.facts import PANE, facts, paragraphs, title
from console.widgets.lines import Line

_STYLES = {"active": GOOD, "suspended": WARNING, "expired": DIM, "revoked": DIM}
_ORDER = {"active": 0, "suspended": 0, "expired": 1, "revoked": 1}
SOON = 7 * 86400  # seconds before its expiry in which a key is pointed out


class KeysPage(TablePage):
    """The keys that are good, and on request those that were."""

    NOUN = "keys"
    SORT = "USED"
    KINDS = ("key",)
    MOVES = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Details"),
        Binding("i", "issue", "Issue"),
        Binding("t", "rotate", "Rotate"),
        Binding("R", "revoke", "Revoke"),
        Binding("a", "all", "All"),
        Binding("u", "user", "User"),
        Binding("l", "limits", "Limits"),
    ]

    def __init__(self) -> None:
        self.COLUMNS = (
            Column("STATE", self._state, 9, sort=lambda key: key["state"]),
            Column("USED", self._used, 5, right=True, sort=lambda key: key["last_used"], descending=True),
            Column("USER", self._text("user"), 16, most=60, sort=lambda key: key["user"]),
            Column("LABEL", self._text("label"), 12, most=32, sort=lambda key: key["label"]),
            Column("FROM", self._text("last_address"), 11, most=20, rank=2, sort=lambda key: key["last_address"]),
            Column("EXPIRES", self._expires, 8, right=True, sort=lambda key: key["expires"]),
            Column("MODELS", self._models, 10, most=30, rank=3),
            Column("ADDRESSES", self._addresses, 9, most=30, rank=5),
            Column("ID", self._text("id"), 10, rank=4),
        )
        super().__init__()
        self._with_over = False
        self._over = 0
        self._revoked: frozenset[str] = frozenset()  # here, since the page came into sight

    # -- cells ---------------------------------------------------------------------------------------------------------

    def _state_of(self, key: Row) -> str:
        return key_state(key, self.lodge.now())

    def _state(self, key: Row) -> Cell:
        state = self._state_of(key)
        if state == "active" and key["previous_until"] and time_left(key["previous_until"], self.lodge.now()) != "over":
            return "2 secrets", WARNING
        return state, _STYLES.get(state, PLAIN)

    def _dimmed(self, key: Row, text: str) -> Cell:
        return (text, DIM) if _ORDER.get(self._state_of(key), 0) else text

    def _text(self, name: str) -> Any:
        return lambda key: self._dimmed(key, key[name] or "-")

    def _used(self, key: Row) -> Cell:
        return self._dimmed(key, "never" if key["last_used"] is None else age(key["last_used"], self.lodge.now()))

    def _expires(self, key: Row) -> Cell:
        now = self.lodge.now()
        if _is_soon(key, now):
            return time_left(key["expires"], now), WARNING
        return self._dimmed(key, time_left(key["expires"], now))

    def _models(self, key: Row) -> Cell:
        return self._dimmed(key, "/metrics" if key["purpose"] == "metrics" else ", ".join(key["models"]) or "all")

    def _addresses(self, key: Row) -> Cell:
        return self._dimmed(key, ", ".join(key["addresses"]) or "any")

    # -- rows ----------------------------------------------------------------------------------------------------------

    def rows(self) -> Mapping[str, Row]:
        keys = self.lodge.link.mirror.rows["key"]
        over = {key_id for key_id, key in keys.items() if _ORDER.get(self._state_of(key), 0)}
        left_out = set() if self._with_over else over - self._revoked
        self._over = len(over if self._with_over else left_out)
        return {key_id: key for key_id, key in keys.items() if key_id not in left_out}

    def version(self) -> Any:
        return super().version(), self._with_over, self._revoked

    def hidden(self) -> None:
        self._revoked = frozenset()

    def group(self, row: Row) -> Any:
        return _ORDER.get(self._state_of(row), 0)

    def nothing(self) -> Sequence[str]:
        return (
            "There is no key that works." if self._over else "There is no key yet.",
            "A program presents one as `Authorization: Bearer glk_…`: press i to issue one to a user.",
        )

    def status(self) -> Line:
        parts = list(super().status())
        if self._over:
            how = "with" if self._with_over else "without"
            parts.append((f" · {how} {self._over} revoked or expired", DIM))
        return parts

    def detail(self, row: Row) -> Sequence[Line]:
        return self._lines(row, room=PANE)

    def _lines(self, key: Row, *, room: int | None = None) -> list[Line]:
        now, state = self.lodge.now(), self._state_of(key)
        why = {"suspended": "suspended: its user is disabled"}.get(state, state)
        used, expires = key["last_used"], key["expires"]
        grace = key["previous_until"]
        style: Style = _STYLES.get(state, PLAIN)
        return [
            title("KEY"),
            *facts(
                [
                    ("id", key["id"]),
                    ("state", why, style),
                    ("user", key["user"]),
                    ("label", key["label"]),
                    ("good for", "/metrics alone" if key["purpose"] == "metrics" else "inference"),
                    ("models", key["models"] or ("" if key["purpose"] == "metrics" else "all")),
                    ("from", key["addresses"] or "anywhere"),
                    ("created", day_and_time(key["created"])),
                    ("expires", f"{day_and_time(expires)}, {time_left(expires, now)}" if expires else "never"),
                    ("revoked", day_and_time(key["revoked"]) if key["revoked"] else "", WARNING),
                    ("last used", f"{day_and_time(used)}, {age(used, now)} ago" if used else "never"),
                    ("last from", key["last_address"]),
                    ("old secret", f"works until {day_and_time(grace)}" if grace else "", WARNING),
                ],
                room=room,
            ),
        ]

    # -- keys ----------------------------------------------------------------------------------------------------------

    def offers(self) -> Sequence[str]:
        row = self.chosen[1] if self.chosen else None
        if row is None:
            return ("issue", "all")
        over = bool(_ORDER.get(self._state_of(row), 0))
        return ("open", "issue", *(() if over else ("rotate", "revoke")), "all", "user", "limits")

    def action_open(self) -> None:
        if self.chosen and self.is_meant():
            key_id, key = self.chosen
            self.begin(self.lodge.show_text(f"key {key_id}", paragraphs(self._lines(key))))

    def action_all(self) -> None:
        self._with_over = not self._with_over
        self._revoked = frozenset()
        self.tick()

    def action_user(self) -> None:
        if self.chosen and self.is_meant():
            self.begin(self._to_user(self.chosen[1]["user"]))

    async def _to_user(self, email: str) -> None:
        await self.lodge.go_to("users", find=email)

    def action_limits(self) -> None:
        if self.chosen and self.is_meant():
            self.begin(self._to_limits(f"key:{self.chosen[0]}"))

    async def _to_limits(self, target: str) -> None:
        from console.screens.limits import LimitsPage

        page = await self.lodge.go_to("limits")
        if isinstance(page, LimitsPage):
            page.look_at(target)

    def action_issue(self) -> None:
        self.issue_to(self.chosen[1]["user"] if self.chosen else "")

    def issue_to(self, email: str) -> None:
        """Ask what the key is for, issue it to this user and show it once."""
        if self.may_change():
            self.begin(issue_key(self, email))

    def action_rotate(self) -> None:
        self._on_good(partial(rotate_key, self))

    def action_revoke(self) -> None:
        self._on_good(self._revoke)

    def _on_good(self, work: Any) -> None:
        if self.chosen and self.may_act():
            key_id, key = self.chosen
            state = self._state_of(key)
            if _ORDER.get(state, 0):
                self.say(f"{key_id} is {state}: i issues a new one")
            else:
                self.begin(work(key))

    async def _revoke(self, key: Row) -> None:
        key_id, label, user = key["id"], key["label"], key["user"]
        runs = sum(row["key"] == key_id for row in self.lodge.link.mirror.rows["live"].values())
        used = f"{age(key['last_used'], self.lodge.now())} ago" if key["last_used"] else "never"
        consequences = [
            "It stops working at once and for good: whoever uses it gets 401.",
            "Tokens made from it end, too, and what runs under it is cut" + (f": {runs} now." if runs else "."),
            f"Last used: {used}" + (f", from {key['last_address']}." if key["last_address"] else "."),
        ]
        if await self.lodge.confirm(f"Revoke the key {key_id} ({label}) of {user}?", consequences):
            target = KeyTarget(key_id, version=key["version"])
            self._revoked |= {key_id}  # the cursor stays on it, and on no other key
            if await self.ask(protocol.KEYS_REVOKE, target) is not None:
                self.say(f"{key_id} ({label}) of {user} is revoked", "good")


def _is_soon(key: Row, now: float) -> bool:
    return key["expires"] is not None and 0 < from_iso(key["expires"]) / 1e6 - now < SOON
