"""What attackers write into connections: the payloads of tests/vectors/smuggling/payloads.json.

A payload is text in Latin-1, in pieces of which `["x", 1000]` means x a thousand times, with `{KEY}`, `{OUTER}` (a
body), `{SMUGGLED}` and `{SECOND}` (whole requests) put in. `SECOND` stands where every reader agrees that a request
begins, `SMUGGLED` where only a mistaken one, or a lenient one in front of us, sees it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "vectors" / "smuggling" / "payloads.json"
KEY_LENGTH = 58  # the lengths in the payloads count on it

_CHAT = '{"model":"smollm2:135m","stream":false,"messages":[{"role":"user","content":"%s"}]}'


@dataclass(frozen=True)
class Payload:
    """One of the file's; `verdicts` by way, each {"answers": […], "asked": […], "next": […]}."""

    family: str
    name: str
    pieces: list[Any]
    verdicts: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.family}: {self.name}"

    def bytes(self, key: str) -> bytes:
        """What is sent."""
        text = "".join(piece if isinstance(piece, str) else piece[0] * piece[1] for piece in self.pieces)
        for name in ("smuggled", "second"):
            text = text.replace(f"{{{name.upper()}}}", _request(_CHAT % name))
        text = text.replace("{OUTER}", _CHAT % "outer")
        return text.replace("{KEY}", key).encode("latin-1")


def payloads() -> list[Payload]:
    """Those of the file."""
    entries = json.loads(FILE.read_text(encoding="utf-8"))
    return [Payload(each["family"], each["name"], each["payload"], each.get("verdicts", {})) for each in entries]


def _request(body: str) -> str:
    return (
        "POST /api/chat HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
