"""A box with a few fields to fill in, checked while one types.

    answer = await lodge.fill("Create a user", [Field("email", "E-mail", check=an_address)])

Rule: Enter sends it from any field once every field is good; until then Enter goes to the first that is not, and says
why. It begins there, too: what is filled in already need not be passed by. Up, down and Tab go from field to field.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

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

    A hint may be made of the text. Of `choices` the first that begins with what is typed is offered: → takes it; those
    that are `fixed` are all there is: their first letters choose, and so do ← and →. A `wide` field has the room that
    its hint does not need: what is typed there is long. What `below` makes of the text stands above the keys.
    """

    name: str
    label: str
    value: str = ""
    hint: str | Callable[[str], str] = ""
    check: Callable[[str], str] = lambda _: ""
    choices: Sequence[str] = ()
    fixed: bool = False
    wide: bool = False
    below: Callable[[str], str] | None = None

    def wrong(self, text: str) -> str:
        """What is wrong with a text; of a few names, too, where nothing else can stand."""
        if self.fixed and text not in self.choices:
            return " or ".join(self.choices)
        return self.check(text)


class Choice(Input):
    """One of a few words: its first letters choose it, ← and → go round; nothing else can stand there."""

    def __init__(self, value: str, choices: Sequence[str], **given: Any) -> None:
        super().__init__(value, **given)
        self.cursor_blink = False
        self._choices = choices
        self._typed = ""  # so far, of the word that is meant

    def on_focus(self) -> None:
        self._typed = ""

    def on_key(self, event: events.Key) -> None:
        if event.key in ("left", "right", "space"):
            place = self._choices.index(self.value) if self.value in self._choices else 0
            self._choose(self._choices[(place + (-1 if event.key == "left" else 1)) % len(self._choices)], "")
        elif event.key in ("backspace", "delete"):
            self._typed = ""
        elif event.is_printable and event.character:
            self._type(event.character)
        else:
            return
        event.stop()
        event.prevent_default()

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        for character in event.text.strip():
            self._type(character)

    def _type(self, character: str) -> None:
        """The word that goes on like this, else one that begins with this letter; else nothing."""
        for typed in (self._typed + character.casefold(), character.casefold()):
            found = next((each for each in self._choices if each.casefold().startswith(typed)), None)
            if found is not None:
                self._choose(found, typed)
                return

    def _choose(self, word: str, typed: str) -> None:
        self._typed = typed
        self.value = word
        self.cursor_position = len(word)


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
        """`done` says what Enter does."""
        super().__init__(title, paragraphs)
        self._done = done or "done"
        self._refused = ""  # why the last Enter did not send it
        self._is_answered = False
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
                name = f"field-{field.name}"
                entry: Input
                if field.fixed:
                    entry = Choice(field.value, field.choices, compact=True, id=name)
                else:
                    offered = SuggestFromList(field.choices, case_sensitive=False) if field.choices else None
                    entry = Input(field.value, compact=True, id=name, suggester=offered)
                entry.cursor_blink = False
                self._inputs[field.name] = entry
                yield entry
                said = self._said[field.name] = Lines(classes="said")
                yield said

    def said(self) -> Line:
        focused = next((each for each in self._fields if self._inputs.get(each.name) is self.focused), None)
        told = "" if focused is None or focused.below is None else focused.below(self.values[focused.name])
        if told and (not self._refused or focused is self._first_wrong()):
            return [(clean(told), DIM)]  # what helps stands beside the field and here
        return [(self._refused, BAD)] if self._refused else []

    def keys(self) -> Line:
        others: Line = [("↑↓", KEY), " another field   "] if len(self._fields) > 1 else []
        return [("Enter", KEY), f" {self._done}   ", *others, ("Esc", KEY), " give up"]

    def on_mount(self) -> None:
        self.check()
        first = self._first_wrong() or next(iter(self._fields), None)
        if first is not None:
            self._inputs[first.name].focus()

    def _first_wrong(self) -> Field | None:
        values = self.values
        return next((field for field in self._fields if field.wrong(values[field.name])), None)

    @property
    def values(self) -> dict[str, str]:
        """What is typed now."""
        return {name: entry.value.strip() for name, entry in self._inputs.items()}

    def check(self) -> None:
        """Say of every field what is wrong with it, or its hint."""
        for field in self._fields:
            typed = self._inputs[field.name].value.strip()
            wrong = field.wrong(typed)
            hint = field.hint
            said = wrong or (hint if isinstance(hint, str) else hint(typed))  # a hint is made of a good text only
            if field.wide:
                self._said[field.name].styles.width = cell_len(clean(said)) + 1 if said else 0
            arrows: Line = [("←→", KEY), " "] if field.fixed else []
            self._said[field.name].show([[*arrows, (clean(said), BAD if wrong else DIM)]])

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._refused = ""
        self.check()
        self._ask()

    def on_descendant_focus(self) -> None:
        self._ask()  # what stands above the keys is about the field that one is in

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        wrong = self._first_wrong()
        if wrong is not None:
            label = clean(wrong.label)
            self._refused = f"{label}: {clean(wrong.wrong(self.values[wrong.name]))}"
            self._inputs[wrong.name].focus()
            self._ask()
        elif self.may_send():
            self._answer(self.values)

    def _answer(self, values: dict[str, str] | None) -> None:
        """Once: on a slow line keys come in one burst, before this box has gone."""
        if not self._is_answered:
            self._is_answered = True
            self.dismiss(values)

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape":
            event.stop()
            self._answer(None)
