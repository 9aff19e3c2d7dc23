"""How an exchange stands or ended, in a word that fits a column: the same on Live, on Audit and over an exchange.

Rule: what is shown may be typed. A search takes these words as well as the protocol's, which stand in the details.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from common.protocol import EndedState

if TYPE_CHECKING:
    from rich.style import Style

OPEN = "open"  # of the audit: it has not ended
WORDS = {
    "ok": "ok",
    "client_left": "left",
    "upstream_error": "up-error",
    "timeout_connect": "timeout",
    "timeout_first_byte": "timeout",
    "timeout_idle": "timeout",
    "timeout_total": "timeout",
    "queue_timeout": "timeout",
    "cancelled_by_admin": "cancelled",
    "user_disabled": "disabled",
    "credential_revoked": "revoked",
    "budget_spent": "budget",
    "shutdown": "shutdown",
    "refused": "refused",
    "crashed": "crashed",
    OPEN: OPEN,
}
NAMES = (OPEN, *get_args(EndedState))  # the protocol's
_ALSO = {"running": OPEN}  # what the command line shows


def word(name: str | None) -> str:
    """The word for a state of the protocol; None is one that has not ended."""
    return OPEN if name is None else WORDS.get(name, name)


def style(name: str | None) -> Style:
    """The colour beside it: what went well is quiet, what failed is not."""
    from console.palette import BAD, DIM, PLAIN, WARNING  # here: a command on the command line starts without colours

    if name == "ok":
        return PLAIN
    if name == "client_left":
        return DIM
    return WARNING if name in (None, OPEN, "refused") else BAD


def full(name: str | None) -> str:
    """The word, and the protocol's where that says more: `timeout (timeout_idle)`."""
    short = word(name)
    return short if name is None or short == name else f"{short} ({name})"


def named(text: str) -> str:
    """The protocol's name of what was typed; ValueError where several are meant."""
    folded = text.casefold()
    if folded in WORDS:
        return folded
    meant = [name for name, short in WORDS.items() if short == folded]
    if len(meant) > 1:
        raise ValueError(f"state:{folded} is one of {', '.join(meant)}")
    return meant[0] if meant else _ALSO.get(folded, text)
