"""The console's colours: the sixteen of the terminal's own palette, and the meaning of each.

Rule: a colour only repeats what a word beside it says, so that nothing is lost under NO_COLOR. The palette's names
cost few bytes, follow the terminal's own theme and exist on every terminal that has colours at all.
"""

from __future__ import annotations

from rich.style import Style

PLAIN = Style()
DIM = Style(dim=True)
BOLD = Style(bold=True)
TITLE = Style(bold=True, color="cyan")
HEADER = Style(bold=True, color="cyan")
SELECTED = Style(reverse=True)
GOOD = Style(color="green")
WAITING = Style(color="cyan")
WARNING = Style(color="yellow", bold=True)
BAD = Style(color="red", bold=True)
KEY = Style(bold=True, color="cyan")
TAB = Style(reverse=True, bold=True)
QUESTION = Style(bold=True, color="yellow")
