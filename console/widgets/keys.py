"""The last line: the keys that do something here and now, read from the bindings in force."""

from __future__ import annotations

from textual.binding import Binding

from console.palette import KEY
from console.widgets.lines import Lines, Part

NAMES = {"enter": "Enter", "escape": "Esc", "slash": "/", "colon": ":", "question_mark": "?", "space": "Space"}
NAMES |= {"pagedown": "PgDn", "pageup": "PgUp", "home": "Home", "end": "End", "up": "↑", "down": "↓"}
NAMES |= {"left": "←", "right": "→", "tab": "Tab"}

SHARED = ("filter", "sort", "pause")  # what every table has: after what the page alone has


def key_name(binding: Binding) -> str:
    """How a key is written in the footer and in the help."""
    return binding.key_display or NAMES.get(binding.key, binding.key)


class Keys(Lines):
    """One line of keys; those of the page first, those of the whole program last."""

    DEFAULT_CSS = "Keys { height: 1; }"
    without_page = False  # no page is in sight: its keys do nothing

    def tick(self) -> None:
        """Read the bindings anew."""
        parts: list[Part] = []
        seen: set[str] = set()
        active = [each for each in self.screen.active_bindings.values() if each.binding.show and each.enabled]
        if self.without_page:
            active = [each for each in active if each.node is self.screen]
        active.sort(key=lambda each: 2 if each.node is self.screen else each.binding.action in SHARED)
        for each in active:
            if each.binding.action not in seen:
                seen.add(each.binding.action)
                parts += [(key_name(each.binding), KEY), f" {each.binding.description}  "]
        self.show([parts])

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.tick())
        self.tick()
