"""How fast the running answers come: tokens a second over the last few seconds.

Rule: measured by looking, and only while somebody looks: the way of a piece knows nothing of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

OVER = 4.0  # seconds that a pace is measured over
APART = 0.2  # seconds between two looks, at least
SHORTEST = 0.5  # seconds from which a difference says something: pieces come in handfuls


class Pace:
    """What was seen of each running exchange, by request id."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, int]]] = {}
        self._looked_at = -APART

    def look(self, now: float, running: Iterable[tuple[str, float, int]]) -> None:
        """Note (request id, seconds since its first byte, pieces so far) of everything that runs; whoever is not in it
        is forgotten. `running` is not asked again within a fraction of a second."""
        if now - self._looked_at < APART:
            return
        self._looked_at = now
        seen: dict[str, deque[tuple[float, int]]] = {}
        for request_id, since_first, pieces in running:
            # One that nobody looked at before began with no piece at its first byte: its average is a beginning.
            samples = self._seen.get(request_id) or deque([(now - since_first, 0)])
            samples.append((now, pieces))
            while len(samples) > 2 and now - samples[1][0] >= OVER:
                samples.popleft()
            seen[request_id] = samples
        self._seen = seen

    def of(self, request_id: str) -> float | None:
        """Tokens a second; None where too little was seen."""
        samples = self._seen.get(request_id)
        if samples is None:
            return None
        (before, had), (now, has) = samples[0], samples[-1]
        return round((has - had) / (now - before), 1) if now - before >= SHORTEST else None

    def total(self) -> float:
        """Of all together."""
        return round(sum(self.of(request_id) or 0.0 for request_id in self._seen), 1)
