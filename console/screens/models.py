"""Models: the upstreams, how they are, and under each what is installed, what is loaded and what is being pulled.

Rules: the health of upstreams comes with the watch stream, the models are asked for every few seconds while one looks.
A pull goes on behind every other page, but ends with the console: quitting asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, ClassVar

import msgspec
from textual.binding import Binding, BindingType
from textual.worker import Worker

from common import protocol
from common.protocol import ModelsList, ModelTarget
from common.untrusted import clean
from console.cells import wrap
from console.client import Refused, Unreachable
from console.figures import progress
from console.mirror import Row, cleaned
from console.palette import BAD, BOLD, DIM, GOOD, WARNING
from console.pulls import Pull
from console.screens import model_actions
from console.screens.model_lines import COLUMNS, facts_of, model_line, pull_line, upstream_line
from console.screens.page import why
from console.screens.table_page import WIDE, TablePage
from console.widgets.lines import Line, Part

LOOK_EVERY = 10.0  # seconds between two looks at the models
PULLS = "ollama"  # the kind of upstream whose models can be pulled and deleted
REST = 0.3  # seconds that the cursor rests on a model before it is asked who may use it
BAR = 16  # cells of a pull's progress in the status line


class ModelsPage(TablePage):
    """Upstreams and their models."""

    NOUN = "upstreams and models"
    KINDS = ("upstream",)
    MOVES = True  # pulls, and what is unloaded in a while
    COLUMNS = COLUMNS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Show"),
        Binding("d", "drain", "Drain"),
        Binding("u", "undrain", "Undrain"),
        Binding("P", "probe", "Probe"),
        Binding("c", "cancel", "Stop the pull"),
        Binding("a", "access", "Who may"),
        Binding("f", "pull", "Pull"),
        Binding("D", "delete", "Delete"),
        Binding("S", "seats", "Seats", show=False),
        Binding("r", "again", "Look again", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, Row] = {}
        self.pulls: dict[str, Pull] = {}
        self._targets: dict[str, ModelTarget] = {}  # the names as they are, not as they are shown
        self._workers: dict[str, Worker[None]] = {}
        self._look: Worker[None] | None = None
        self._looked_at = 0.0
        self._looking = False
        self._problem = ""
        self._version = 0
        self._who_may: Sequence[Line] = ()
        self._who_may_of: tuple[Any, ...] = ()

    # -- the rows ------------------------------------------------------------------------------------------------------

    def rows(self) -> Mapping[str, Row]:
        upstreams = self.lodge.link.mirror.rows["upstream"]
        order = {name: number for number, name in enumerate(upstreams)}
        found = {f"u:{name}": upstream_line(row, order[name]) for name, row in upstreams.items()}
        only = next(iter(upstreams), "")
        for pull_id, pull in self.pulls.items():
            upstream = pull.upstream or only
            found[pull_id] = pull_line(pull, upstream, order.get(upstream, len(order)))
        now = self.lodge.as_of()
        for model_id, row in self.models.items():
            found[model_id] = model_line(row, order.get(row["upstream"], len(order)), now)
        return found

    def version(self) -> Any:
        return (super().version(), self._version)

    def group(self, row: Row) -> Any:
        return row["group"]

    def shown(self) -> None:
        self._looked_at = 0.0

    def tick(self) -> None:
        old = not self._looked_at or self.lodge.monotonic() - self._looked_at >= LOOK_EVERY
        if old and self.lodge.link.is_live and not self._looking:
            self.look()
        super().tick()
        self._look_who_may()

    def look(self) -> None:
        """Ask for the models now."""
        self._looked_at, self._looking = self.lodge.monotonic(), True
        self._look = self.run_worker(partial(self._fetch), group="models", exclusive=True)

    async def _fetch(self) -> None:
        try:
            answer = await self.lodge.channel.ask(protocol.MODELS_LIST, ModelsList())
        except (Refused, Unreachable) as error:
            self._problem = why(error)
        else:
            self._problem = ""
            self._targets = {f"m:{each.upstream}:{each.name}": ModelTarget(each.name, each.upstream) for each in answer}
            self.models = {f"m:{each.upstream}:{each.name}": cleaned(msgspec.to_builtins(each)) for each in answer}
        self._looking = False
        self._version += 1
        if self.display:
            super().tick()

    def nothing(self) -> Sequence[str]:
        return ("There is no upstream. Name one: `gatelodge --ollama URL`, or [[upstreams]] in the configuration.",)

    def status(self) -> Line:
        parts: list[Part] = [*super().status()]
        running = [pull for pull in self.pulls.values() if not pull.problem]
        for pull in running[:1]:
            parts += [f" · pull of {clean(pull.model)} ", (progress(pull.part, BAR), GOOD)]
        if running:
            more = "" if len(running) == 1 else f" and {len(running) - 1} more"
            parts.append((f"{more}: quitting ends {'it' if len(running) == 1 else 'them'}", WARNING))
        if self._problem:
            parts.append((f" · models: {self._problem}", BAD))
        elif not self._looked_at or (self._looking and not self.models):
            parts.append((" · asking for the models …", DIM))
        return parts

    def offers(self) -> Collection[str] | None:
        pull = ("pull",) if not self._why_fixed() else ()
        if self.chosen is None:
            return pull
        line = self.chosen[1]
        if line["kind"] == "pull":
            return ("cancel", *pull)
        if line["kind"] == "model":
            return ("open", "access", *(("delete",) if pull else ()), *pull)
        return ("open", "undrain" if line["row"]["drained"] else "drain", "probe", *pull)

    def _why_fixed(self) -> str:
        """Why nothing can be pulled to, or deleted from, the upstream under the cursor; empty where it can."""
        upstreams = self.lodge.link.mirror.rows["upstream"]
        row = None if self.chosen is None else upstreams.get(self.chosen[1]["upstream"])
        if not any(each["kind"] == PULLS for each in upstreams.values()):
            return "no Ollama is behind this gateway: the models of its upstreams are fixed"
        if row is not None and row["kind"] != PULLS:
            return f"the models of {row['name']} are fixed: it is no Ollama; put the cursor on one"
        if row is not None and row["state"] == "down":
            return f"{row['name']} is down"
        return ""

    def detail(self, line: Row) -> Sequence[Line]:
        lines: list[list[Part]] = [[(line["name"].strip(), BOLD)], []]
        for name, value, style in facts_of(line, self.lodge.as_of()):
            pieces = wrap(value, 44 - 13)
            lines += [[(f"{name if n == 0 else '':<13}", DIM), (piece, style)] for n, piece in enumerate(pieces)]
        return [*lines, *self._who_may]

    # -- who may, beside the table -------------------------------------------------------------------------------------

    def _look_who_may(self) -> None:
        """Beside the table stands who may use the model under the cursor: asked for once the cursor rests on it."""
        target = None if self.chosen is None else self._targets.get(self.chosen[0])
        changes = self.lodge.link.mirror.changes
        depends = (target, changes["user"], changes["key"])
        if self.app.size.width < WIDE or not self.lodge.link.is_live or depends == self._who_may_of:
            return
        self._who_may_of, self._who_may = depends, ()
        self.run_worker(self._fetch_who_may(target), group="access", exclusive=True)

    async def _fetch_who_may(self, target: ModelTarget | None) -> None:
        if target is None:
            return
        await asyncio.sleep(REST)
        try:
            rows = await self.lodge.channel.ask(protocol.MODELS_ACCESS, target)
        except (Refused, Unreachable):
            return  # Enter and `a` say why
        self._who_may = [[], *model_actions.who_may(rows)]
        if self.display:
            super().tick()

    # -- pulling -------------------------------------------------------------------------------------------------------

    def begin_pull(self, model: str, upstream: str | None) -> None:
        """Pull, behind whatever page is in sight."""
        pull_id = f"p:{upstream or ''}:{model}"
        if pull_id in self._workers:
            self.say(f"{model} is being pulled already")
            return
        self.pulls[pull_id] = Pull(model, upstream)
        self._version += 1
        self._workers[pull_id] = self.run_worker(partial(self._pull, pull_id), group=pull_id)
        if self.display:
            super().tick()
            self.table.select(pull_id)  # what one began is what one watches, and may want to stop

    async def _pull(self, pull_id: str) -> None:
        pull = self.pulls[pull_id]
        words = f"the pull of {pull.model}"
        self.lodge.unfinished.add(words)
        steps = self.lodge.channel.items(protocol.MODELS_PULL, ModelTarget(pull.model, pull.upstream))
        try:
            async with aclosing(steps) as news:
                async for step in news:
                    pull.take(msgspec.structs.replace(step, status=clean(step.status)), self.lodge.monotonic())
        except (Refused, Unreachable) as error:
            pull.problem = clean(why(error))
            self.say(f"{pull.model} was not pulled: {pull.problem}; pulling again goes on from there", "bad")
        else:
            await self._fetch()  # its line stands until the model does, to which the cursor goes from there
            if self.table.cursor_id == pull_id:
                self.follow(partial(_is_pulled, pull))
            self.pulls.pop(pull_id, None)
            self.say(f"{pull.model} is pulled", "good")
        finally:
            self.lodge.unfinished.discard(words)
            self._workers.pop(pull_id, None)
            self._version += 1

    def stop_pull(self, pull_id: str) -> None:
        """End it, at the upstream too; what is there stays there."""
        worker = self._workers.pop(pull_id, None)
        if worker is not None:
            worker.cancel()
        self.pulls.pop(pull_id, None)
        self._version += 1

    # -- keys ----------------------------------------------------------------------------------------------------------

    def _target(self) -> ModelTarget | None:
        target = None if self.chosen is None else self._targets.get(self.chosen[0])
        if target is None:
            self.say("put the cursor on a model")
        return target

    def _upstream(self) -> Row | None:
        """The upstream under the cursor, or that of the model under it."""
        name = None if self.chosen is None else self.chosen[1]["upstream"]
        row = self.lodge.link.mirror.rows["upstream"].get(name or "")
        if row is None:
            self.say("put the cursor on an upstream")
        return row

    def action_open(self) -> None:
        if self.chosen is None or not self.is_meant():
            return
        line = self.chosen[1]
        target = self._targets.get(self.chosen[0])
        if line["kind"] == "model" and target is not None:
            self.begin(model_actions.show(self, target))
        else:
            facts = [(f"{name:<13}{value}", style) for name, value, style in facts_of(line, self.lodge.as_of())]
            self.begin(self.lodge.show_text(line["name"].strip(), facts))

    def action_access(self) -> None:
        if (target := self._target()) is not None and self.is_meant():
            self.begin(model_actions.access(self, target))

    def action_delete(self) -> None:
        if (target := self._target()) is not None and self._can_change_models() and self.is_meant():
            self.begin(model_actions.delete(self, target))

    def _can_change_models(self) -> bool:
        if problem := self._why_fixed():
            self.say(problem)
        return not problem and self.may_change()

    def action_pull(self) -> None:
        if self._can_change_models():
            upstream = self.chosen[1]["upstream"] if self.chosen is not None else None
            self.begin(model_actions.pull(self, upstream))

    def action_cancel(self) -> None:
        if self.chosen is None or self.chosen[1]["kind"] != "pull":
            self.say("put the cursor on a pull")
        else:
            self.begin(model_actions.stop_pull(self, *self.chosen))

    def action_drain(self) -> None:
        if (row := self._upstream()) is not None and self.may_act():
            self.begin(model_actions.drain(self, row))

    def action_undrain(self) -> None:
        if (row := self._upstream()) is not None and self.may_act():
            self.begin(model_actions.undrain(self, row))

    def action_probe(self) -> None:
        if (row := self._upstream()) is not None and self.may_act():
            self.begin(model_actions.probe(self, row))

    def action_seats(self) -> None:
        if (row := self._upstream()) is not None and self.may_act():
            self.begin(model_actions.seats(self, row))

    def action_again(self) -> None:
        if self.lodge.link.is_live:
            self.look()
        else:
            self.lodge.link.retry_now()


def _is_pulled(pull: Pull, _: str, line: Row) -> bool:
    """Whether the line is the model that was pulled; a name without a tag is `latest`."""
    if line["kind"] != "model" or pull.upstream not in (None, line["upstream"]):
        return False
    name = clean(pull.model)
    return line["row"]["name"] in (name, f"{name}:latest")
