"""A box with a few fields to fill in, checked while one types.

    answer = await lodge.fill("Create a user", [Field("email", "E-mail", check=an_address)])

Rule: it cannot be left with Enter while a field is wrong; what is wrong stands beside the field.
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
from textual.widgets import Input

from common.untrusted import clean
from console.palette import BAD, DIM, KEY, PLAIN
from console.widgets.dialogs import Dialog
from console.widgets.lines import Line, Lines


@dataclass(frozen=True)
class Field:
    """One field. `check` gives what is wrong with a text, or an empty string; `hint` stands beside a good one."""

    name: str
    label: str
    value: str = ""
    hint: str = ""
    check: Callable[[str], str] = lambda _: ""


class Form(Dialog[dict[str, str] | None]):
    """Answers the texts by the fields' names, stripped; None where it was given up."""

    DEFAULT_CSS = """
    Form .field { height: 1; }
    Form .label { width: 22; height: 1; }
    Form .said { width: 30; height: 1; padding: 0 0 0 1; }
    Form Input { width: 1fr; }
    """
    has_fields = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "app.focus_next", "Next field", show=False),
        Binding("up", "app.focus_previous", "Previous field", show=False),
    ]

    def __init__(self, title: str, fields: Sequence[Field], paragraphs: Sequence[str | tuple[str, Style]] = ()) -> None:
        super().__init__(title, paragraphs)
        self._fields = fields
        self._inputs: dict[str, Input] = {}
        self._said: dict[str, Lines] = {}

    def fields(self) -> ComposeResult:
        for field in self._fields:
            with Horizontal(classes="field"):
                label = Lines(classes="label")
                label.show([[clean(field.label) + ":"]])
                yield label
                entry = Input(field.value, compact=True, id=f"field-{field.name}")
                entry.cursor_blink = False
                self._inputs[field.name] = entry
                yield entry
                said = self._said[field.name] = Lines(classes="said")
                yield said

    def keys(self) -> Line:
        return [("Enter", KEY), " next, at the last one done   ", ("Esc", KEY), " give up"]

    def on_mount(self) -> None:
        self.check()
        if self._inputs:
            next(iter(self._inputs.values())).focus()

    @property
    def values(self) -> dict[str, str]:
        """What is typed now."""
        return {name: entry.value.strip() for name, entry in self._inputs.items()}

    def check(self) -> bool:
        """Whether every field is good; says what is not."""
        good = True
        for field in self._fields:
            wrong = field.check(self._inputs[field.name].value.strip())
            good = good and not wrong
            self._said[field.name].show(
                [[(clean(wrong or field.hint), BAD if wrong else DIM if field.hint else PLAIN)]]
            )
        return good

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.check()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if event.input is not list(self._inputs.values())[-1]:
            self.focus_next()
        elif self.check():
            self.dismiss(self.values)

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape":
            event.stop()
            self.dismiss(None)
