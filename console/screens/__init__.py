"""The console's pages, one file each, and the table of them: digit, title, where it is, what stands on its tab.

A page is a `Page` (`page.py`) or, mostly, a `TablePage` (`table_page.py`). It is imported when it is first looked at,
and lives until the end: order, filter and cursor are still there when one comes back. How to write one:

    class KeysPage(TablePage):
        NOUN, SORT, KINDS = "keys", "USED", ("key",)             # KINDS: rows() is asked again when one of them changed
        COLUMNS = (
            Column("STATE", lambda key: (key["state"], palette.GOOD if key["state"] == "active" else palette.DIM), 9),
            Column("USED", lambda key: times.ago(key["last_used"]), 8, right=True,
                   sort=lambda key: key["last_used"], descending=True),
            Column("USER", lambda key: key["user"], 12, most=30, sort=lambda key: key["user"]),   # grows to 30
            Column("LABEL", lambda key: key["label"], 8, most=24, rank=2),                        # goes before rank 1
        )
        BINDINGS = [Binding("R", "revoke", "Revoke")]           # shown in the footer; all of them in `?`

        def rows(self):                                          # from the mirror: its strings are clean already
            return self.lodge.link.mirror.rows["key"]

        def action_revoke(self) -> None:
            if self.chosen:
                self.begin(self._revoke(*self.chosen))           # captured now: id and row, with its version

        async def _revoke(self, key_id: str, key: Row) -> None:
            if not await self.lodge.confirm("Revoke this key?", [f"{key_id} of {key['user']} stops working at once."]):
                return
            if await self.ask(protocol.KEYS_REVOKE, KeyTarget(key_id, version=key["version"])) is not None:
                self.say(f"{key_id} is revoked", "good")

Rules:
- An action captures id, version and what its question names at the key press; the row may go meanwhile.
- Tiers: what can be undone asks `await lodge.ask_yes("Disable ana@…? Her 2 streams end.")` in the footer; reset, revoke
  and limits ask `await lodge.confirm(title, consequences)` (default No); delete and bulk ask
  `await lodge.confirm_by_name(title, consequences, name)`. A secret is shown by `await lodge.show_secret(...)`, once.
- `await self.ask(verb, request)` is None where it was refused, and the footer says why: also a conflict ("changed since
  you looked") and that nothing is changed while the daemon is away.
- Actions that wait run in `self.begin(...)`, never in the action itself: a handler that waits holds up the keys.
- Rows from a verb's answer: fetch in a `begin(...)` task, keep `cleaned(msgspec.to_builtins(answer))`, raise your own
  counter and give it as `version()`; then `rows()` is asked again. Nothing is drawn outside of `tick`.
- `await self.attempt(verb, request)` raises Refused or Unreachable, where there is an answer to them. A form whose
  answer may be refused: `await self.fill_until_done(title, fields, paragraphs, do)` brings it back as it was filled in.
- An action that asks begins with `if self.may_change()`, one about the row under the cursor with `if self.chosen and
  self.may_act()`; one that only shows or leads on with `self.is_meant()`. What it makes, or brings back under another
  id, it follows: `self.follow(…)`. `offers()` names the actions that fit the row, best first: the footer shows those;
  the others say why they do not fit.
- State is a word; a colour (`console/palette.py`) only repeats it. What moves stands in the leftmost columns.
- Forms: `await lodge.fill(title, [Field("email", "E-mail", check=…)])` gives a dict, or None. Longer texts:
  `await lodge.show_text(title, paragraphs)`. To another page: `lodge.go_to("users", find=…)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from console.mirror import Mirror

if TYPE_CHECKING:
    from console.screens.page import Page


@dataclass(frozen=True)
class Tab:
    """One page: `name` is its word on the command line, `place` where it is written, `badge` what its tab adds.

    `short` is the title where there is little room.
    """

    digit: str
    name: str
    title: str
    place: str
    badge: Callable[[Mirror], str] = lambda _: ""
    short: str = ""

    def make(self) -> Page:
        """A new page."""
        module, _, name = self.place.partition(":")
        page: Page = getattr(import_module(module), name)()
        return page


def _pending(mirror: Mirror) -> str:
    waiting = len(mirror.rows["registration"])
    return f"({waiting})" if waiting else ""


def _sick(mirror: Mirror) -> str:
    return "!" if any(row["state"] == "down" for row in mirror.rows["upstream"].values()) else ""


TABS: tuple[Tab, ...] = (
    Tab("1", "live", "Live", "console.screens.live:LivePage"),
    Tab("2", "users", "Users", "console.screens.users:UsersPage", _pending),
    Tab("3", "keys", "Keys", "console.screens.keys:KeysPage"),
    Tab("4", "models", "Models", "console.screens.models:ModelsPage", _sick, "Mod"),
    Tab("5", "usage", "Usage", "console.screens.usage:UsagePage", short="Use"),
    Tab("6", "audit", "Audit", "console.screens.audit:AuditPage", short="Aud"),
    Tab("7", "limits", "Limits", "console.screens.limits:LimitsPage", short="Lim"),
    Tab("8", "jobs", "Jobs", "console.screens.jobs:JobsPage"),
)
