"""A box with a few fields to fill in, checked while one types.

    answer = await lodge.fill("Create a user", [Field("email", "E-mail", check=an_address)])

Rule: it cannot be left with Enter while a field is wrong; what is wrong stands beside the field. It begins in the first
field that is not good yet: what is filled in already need not be passed by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.suggester import SuggestFromList
from textual.widgets import Input

from common.untrusted import clean
from console.cells import cell_len
from console.palette import BAD, DIM, KEY
from console.widgets.dialogs import Dialog
from console.widgets.lines import Line, Lines


@dataclass(frozen=True)
class Field:
    """One field. `check` gives what is wrong with a text, or an empty string; `hint` stands beside a good one.

    A hint may be made of the text. Of `choices` the first that begins with what is typed is offered: → takes it. A
    `wide` field has the room that its hint does not need: what is typed there is long.
    """

    name: str
    label: str
    value: str = ""
    hint: str | Callable[[str], str] = ""
    check: Callable[[str], str] = lambda _: ""
    choices: Sequence[str] = ()
    wide: bool = False


class Form(Dialog[dict[str, str] | None]):
    """Answers the texts by the fields' names, stripped; None where it was given up."""

    DEFAULT_CSS = """
    Form .field { height: 1; }
    Form .label { height: 1; }
    Form .said { width: 1fr; height: 1; padding: 0 0 0 1; }
    Form Input { width: 1fr; }
    Form Input > .input--suggestion { text-style: dim; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "app.focus_next", "Next field", show=False),
        Binding("up", "app.focus_previous", "Previous field", show=False),
    ]

    def __init__(
        self,
        title: str,
        fields: Sequence[Field],
        paragraphs: Sequence[str | tuple[str, Style]] = (),
        *,
        done: str = "",
    ) -> None:
        """With `done`, Enter is that from every field, not only from the last one."""
        super().__init__(title, paragraphs)
        self._done = done
        self._fields = fields
        self.field_lines = len(fields)
        self._inputs: dict[str, Input] = {}
        self._said: dict[str, Lines] = {}

    def fields(self) -> ComposeResult:
        longest = max((cell_len(clean(field.label)) for field in self._fields), default=0)
        for field in self._fields:
            with Horizontal(classes="field"):
                label = Lines(classes="label")
                label.styles.width = longest + 2
                label.show([[clean(field.label) + ":"]])
                yield label
                offered = SuggestFromList(field.choices, case_sensitive=False) if field.choices else None
                entry = Input(field.value, compact=True, id=f"field-{field.name}", suggester=offered)
                entry.cursor_blink = False
                self._inputs[field.name] = entry
                yield entry
                said = self._said[field.name] = Lines(classes="said")
                yield said

    def keys(self) -> Line:
        if self._done:
            return [("Enter", KEY), f" {self._done}   ", ("↑↓", KEY), " another field   ", ("Esc", KEY), " give up"]
        return [("Enter", KEY), " next, at the last one done   ", ("Esc", KEY), " give up"]

    def on_mount(self) -> None:
        self.check()
        empty = (field.name for field in self._fields if field.check(field.value.strip()))
        first = next(empty, next(iter(self._inputs), None))
        if first is not None:
            self._inputs[first].focus()

    @property
    def values(self) -> dict[str, str]:
        """What is typed now."""
        return {name: entry.value.strip() for name, entry in self._inputs.items()}

    def check(self) -> bool:
        """Whether every field is good; says what is not."""
        good = True
        for field in self._fields:
            typed = self._inputs[field.name].value.strip()
            wrong = field.check(typed)
            good = good and not wrong
            hint = field.hint
            said = wrong or (hint if isinstance(hint, str) else hint(typed))  # a hint is made of a good text only
            if field.wide:
                self._said[field.name].styles.width = cell_len(clean(said)) + 1 if said else 0
            self._said[field.name].show([[(clean(said), BAD if wrong else DIM)]])
        return good

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.check()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        inputs = list(self._inputs.values())
        if not self._done and event.input is not inputs[-1]:
            # Not "the next of what has the focus": on a slow line keys come in one burst, before the focus has moved.
            inputs[inputs.index(event.input) + 1].focus()
        elif self.check() and self.may_send():
            self.dismiss(self.values)

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape":
            event.stop()
            self.dismiss(None)
