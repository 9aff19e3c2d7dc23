"""What an upstream says in its errors, without the secret that the gate shows it.

Rule: who refuses a key often repeats it, whole, in parts, or with stars for its middle; a client, the journal and the
log get none of it. That a key was refused is told in words of our own: it is between the gate and its upstream, and
only the administrator can mend it. Parts are looked for where they are of PART characters or more: shorter ones occur
by chance. Good answers are not looked at.
"""

from __future__ import annotations

import logging
import re
import secrets
from typing import Any

import msgspec

from common.errors import UpstreamFailed
from daemon.dialects.translator import UpstreamSaid, error_words

log = logging.getLogger("gatelodge.upstream")

PART = 8  # characters
TOLD = 4  # characters beside the stars by which a blotted out key is known: fewer are in any text with an ellipsis
LONGEST = 16 * 1024  # bytes of an error's body that is looked through; of a longer one only its words are told
LEFT_OUT = "[key]"
_REFUSED = frozenset({401, 403})
# The ends of a key with its middle blotted out: sk-proj-****wxyz, sk-ant…wxyz, sk-a...wxyz.
_BLOTTED = re.compile(r"([^\s\"'`()<>{}\[\]*•…]{0,64}?)(?:\*+|•+|…+|\.{3,})([^\s\"'`()<>{}\[\]*•….,;:]{0,64})")


class Discretion:
    """Of one upstream: `name` and the `secret` that it is shown, empty where it is shown none."""

    __slots__ = ("_name", "_parts", "_secret")

    def __init__(self, name: str, secret: str) -> None:
        self._name = name
        self._secret = secret
        self._parts = frozenset(secret[at : at + PART] for at in range(len(secret) - PART + 1))

    def __repr__(self) -> str:
        return f"<Discretion of {self._name}>"

    def is_of(self, secret: str) -> bool:
        """Whether it keeps this secret."""
        return secrets.compare_digest(self._secret, secret)

    def keep(self, failure: UpstreamFailed) -> None:
        """Take the secret out of `failure`'s words; one that says the key was refused is told in our own."""
        if not self._secret:
            return
        status = failure.upstream_status if isinstance(failure, UpstreamSaid) else None
        if status in _REFUSED:
            failure.message = self._refused(status, failure.message)
            failure.code = type(failure).code
            failure.detail = {}
        else:
            failure.message = self.text(failure.message)
            failure.detail = {name: self._value(value) for name, value in failure.detail.items()}
        failure.args = (failure.message,)

    def body(self, status: int, body: bytes) -> bytes:
        """The body of an answer with that status, `{"error": words}` where they had to be changed."""
        if not self._secret or status < 400:
            return body
        try:
            words = error_words(msgspec.json.decode(body))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            words = ""
        if status in _REFUSED:
            return msgspec.json.encode({"error": self._refused(status, words)})
        kept = self.text(words)
        # What else the answer holds is passed on only where nothing of the key is in it.
        if kept == words and len(body) <= LONGEST:
            as_it_came = body.decode("utf-8", "replace")
            if self.text(as_it_came) == as_it_came:
                return body
        return msgspec.json.encode({"error": kept or f"the upstream answered {status}"})

    def text(self, text: str) -> str:
        """`text` without the secret, its parts and its blotted out forms."""
        if not self._secret:
            return text
        text = _BLOTTED.sub(self._unblotted, text)
        if not self._parts:  # a short one: as a word by itself
            return re.sub(rf"(?<!\w){re.escape(self._secret)}(?!\w)", LEFT_OUT, text)
        kept: list[str] = []
        start = at = 0
        while at <= len(text) - PART:
            if text[at : at + PART] not in self._parts:
                at += 1
                continue
            kept += (text[start:at], LEFT_OUT)
            while at <= len(text) - PART and text[at : at + PART] in self._parts:
                at += 1
            start = at = at + PART - 1
        return "".join([*kept, text[start:]]) if kept else text

    def _unblotted(self, found: re.Match[str]) -> str:
        left, right = found.groups()
        # What stands before the key without a space, such as "key=", is not of it.
        ends = next((left[at:] for at in range(len(left)) if self._secret.startswith(left[at:])), "")
        if len(ends + right) < TOLD or not self._secret.endswith(right):
            return found.group()
        return left.removesuffix(ends) + LEFT_OUT

    def _value(self, value: Any) -> Any:
        return self.text(value) if isinstance(value, str) else value

    def _refused(self, status: int | None, words: str) -> str:
        log.warning("the upstream %s refused its key (%s): %s", self._name, status, self.text(words))
        return f"the upstream {self._name} refused the key that the gateway shows it: the administrator must look"
