"""What the pages share: one tab of the console; of those that are mostly a table, `table_page.py` has the rest.

How to write one: see the docstring of `console/screens/__init__.py`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from rich.style import Style
from textual.widget import Widget

from common.protocol import Request, Verb
from console.client import BrokenOff, Refused, Unreachable
from console.widgets.dialogs import Trouble
from console.widgets.form import Field
from console.widgets.lines import Line

if TYPE_CHECKING:
    from console.app import Lodge

Q = TypeVar("Q", bound=Request)
A = TypeVar("A")

CHANGED_MEANWHILE = "changed_meanwhile"
LOOK_AGAIN = "look at it again"
_CHANGED = re.compile(" (?:was|were) changed ")
ACTION = "action"
AWAY = "nothing is changed while the daemon is away; try again when it is LIVE"


class Page(Widget, can_focus=False):
    """One tab. `tick` is called four times a second while it is in sight, and nothing else draws."""

    DEFAULT_CSS = "Page { height: 1fr; width: 1fr; }"
    MOVES: ClassVar[bool] = False  # what it shows changes with time alone (elapsed, expiring …)

    def __init__(self) -> None:
        super().__init__(markup=False)

    @property
    def lodge(self) -> Lodge:
        """The program: link, channel, clock, prompt."""
        return cast("Lodge", self.app)

    # -- what a page may override --------------------------------------------------------------------------------------

    def shown(self) -> None:
        """The page came into sight (again)."""

    def hidden(self) -> None:
        """Another page came into sight."""

    def tick(self) -> None:
        """Redraw what is visible and changed."""

    def status(self) -> Line:
        """The line below the page: how many, in which order, what is wrong."""
        return []

    def focus_body(self) -> None:
        """Put the keys where they belong."""

    def apply_filter(self, text: str) -> None:
        """Show only what has these words; called at each key of `/`."""

    def offers(self) -> Collection[str] | None:
        """The actions that make sense on the row under the cursor, best first: what the footer shows. None: all."""
        return None

    @property
    def filter_text(self) -> str:
        """The filter in force."""
        return ""

    # -- what a page uses ----------------------------------------------------------------------------------------------

    def say(self, sentence: str, level: str = "info") -> None:
        """A sentence in the footer; `level` info, good, bad, or away (see `level_of`)."""
        self.lodge.say(sentence, level)

    def begin(self, work: Coroutine[Any, Any, None], *, group: str = ACTION) -> None:
        """Do something that waits (for an answer, for a person) without holding up the keys.

        An action (the default `group`) is dropped while another one is about to ask: see `Lodge.may_begin`.
        """
        if group != ACTION:
            self.run_worker(work, group=group, exit_on_error=True)
        elif self.lodge.may_begin():
            self.lodge.began(self.run_worker(work, group=group, exit_on_error=True))
        else:
            work.close()

    async def ask(self, verb: Verb[Q, A], request: Q) -> A | None:
        """The answer of a verb; None where there is none, and the footer says why.

        A change is not even tried while the daemon is away: what is on the screen may no longer be so.
        """
        try:
            return await self.attempt(verb, request)
        except (Refused, Unreachable) as error:
            self.say(why(error), level_of(error))
            return None

    async def attempt(self, verb: Verb[Q, A], request: Q) -> A:
        """As `ask`, for who has an answer to a refusal: Refused, Unreachable."""
        if verb.changes and not self.lodge.link.is_live:
            raise Unreachable(AWAY)
        return await self.lodge.channel.ask(verb, request)

    def may_change(self) -> bool:
        """Whether a key may begin a change: the daemon is there (else it is said), and nothing else is about to ask."""
        if not self.lodge.may_begin():
            return False
        if not self.lodge.link.is_live:
            self.say(AWAY, "away")
        return self.lodge.link.is_live

    async def fill_until_done(
        self,
        title: str,
        fields: Sequence[Field],
        paragraphs: Sequence[str | tuple[str, Style]],
        do: Callable[[dict[str, str]], Awaitable[A]],
    ) -> A | None:
        """A form and what is done with it. Where that is refused, the form is there again as it was filled in, with
        the reason; None where it was given up."""
        trouble: Trouble | None = None
        while True:
            typed = await self.lodge.fill(title, fields, paragraphs, trouble=trouble)
            if typed is None:
                return None
            try:
                return await do(typed)
            except (Refused, Unreachable) as error:
                if isinstance(error, Refused) and error.code == CHANGED_MEANWHILE:
                    self.say(why(error), "bad")  # it is about what is no longer so: only another look helps
                    return None
                trouble = self.trouble(error)
                fields = [replace(field, value=typed[field.name]) for field in fields]

    def trouble(self, error: Refused | Unreachable, todo: str = LOOK_AGAIN) -> Trouble:
        """As `why`, for a box that is there again; that there is no daemon holds only until it is back."""
        if isinstance(error, Refused):
            words = why(error, todo)
            changed = error.code == CHANGED_MEANWHILE
            return Trouble(f"{words[:1].upper()}{words[1:]}." if changed else f"Not done: {words}.")
        if isinstance(error, BrokenOff):
            return Trouble(f"Perhaps done: {error}.")
        return Trouble(f"Not done: {error}.", self.lodge.link.connections)


def level_of(error: Refused | Unreachable) -> str:
    """How what was not done is said: that there is no daemon holds only until it is back."""
    return "bad" if isinstance(error, Refused | BrokenOff) else "away"


def why(error: Refused | Unreachable, todo: str = LOOK_AGAIN) -> str:
    """What is said of an action that was not done. Foreign words may be in it: say it through the footer."""
    if isinstance(error, Refused) and error.code == CHANGED_MEANWHILE:
        what, *told = _CHANGED.split(str(error))
        return f"{what if told else 'it'} changed since you looked, nothing was done; {todo}"
    return str(error)
