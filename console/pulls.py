"""How far a pull is: the steps that an upstream tells, layer by layer, added up. Pure.

Rule: what is behind the last step is not guessed: the total grows while new layers are told.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from common import times
from common.protocol import PullProgress
from console.figures import bytes_of, share

WINDOW = 10.0  # seconds over which the rate is taken


@dataclass
class Pull:
    """One pull; `upstream` is None where there is only one that it can go to."""

    model: str
    upstream: str | None
    status: str = "asking"
    problem: str = ""  # why it ended badly
    _layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    _points: deque[tuple[float, int]] = field(default_factory=deque)  # (moment, bytes done)

    def take(self, step: PullProgress, now: float) -> None:
        """One step; `now` is monotonic seconds."""
        self.status = step.status
        if step.digest and step.total:
            self._layers[step.digest] = (min(step.completed or 0, step.total), step.total)
            self._points.append((now, self.done))
            while len(self._points) > 2 and now - self._points[0][0] > WINDOW:
                self._points.popleft()

    @property
    def done(self) -> int:
        """Bytes that are there."""
        return sum(completed for completed, _ in self._layers.values())

    @property
    def total(self) -> int | None:
        """Bytes of all layers that were told of; None before the first."""
        return sum(total for _, total in self._layers.values()) or None

    @property
    def part(self) -> float | None:
        """0 to 1; None where nobody knows."""
        return share(self.done, self.total)

    @property
    def rate(self) -> float | None:
        """Bytes a second, lately."""
        if len(self._points) < 2:
            return None
        (first, before), (last, after) = self._points[0], self._points[-1]
        return (after - before) / (last - first) if last > first else None

    @property
    def state(self) -> str:
        """A word for the column."""
        if self.problem:
            return "failed"
        return "pull" if self.part is None else f"pull{int(100 * self.part):3d}%"

    def words(self) -> str:
        """What it does: time left and rate, or the step."""
        if self.problem:
            return self.problem
        rate, total = self.rate, self.total
        if not rate or total is None or self.done >= total:
            return self.status
        return f"{times.short((total - self.done) / rate)} left, {bytes_of(rate)}/s"
