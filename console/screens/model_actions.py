"""What is done with upstreams and models from the Models page: asked about first, in words that name it.

Rule: each gets its target as it was at the key press.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from rich.style import Style

from common import protocol
from common.protocol import ModelAccess, ModelTarget, Nothing, UpstreamsSeats, UpstreamTarget
from common.untrusted import clean, clean_block
from console.cells import fit
from console.mirror import Row
from console.palette import BOLD, DIM, PLAIN
from console.widgets.form import Field
from console.widgets.lines import Line

if TYPE_CHECKING:
    from console.screens.models import ModelsPage

MOST_SEATS = 4096
Paragraph = str | tuple[str, Style]


async def show(page: ModelsPage, target: ModelTarget) -> None:
    """What the upstream knows of a model."""
    answer = await page.ask(protocol.MODELS_SHOW, target)
    if answer is None:
        return
    facts: list[Paragraph] = []
    blocks: list[Paragraph] = []
    for name, value in answer.information.items():
        if isinstance(value, dict):
            facts += [f"{name}.{key}: {_short(each)}" for key, each in value.items() if not isinstance(each, dict)]
        elif isinstance(value, str) and "\n" in value:
            blocks += ["", (name, BOLD), *clean_block(value).split("\n")]
        else:
            facts.append(f"{name}: {_short(value)}")
    await page.lodge.show_text(f"{answer.name} on {answer.upstream}", [*facts, *blocks])


def _short(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 2000 else text[:2000] + "…"


def who_may(rows: Sequence[ModelAccess]) -> list[Line]:
    """The same in few words, for the pane beside the table: a line a user, by login or with which keys."""
    users: dict[str, list[str]] = {}
    for row in rows:
        ways = users.setdefault(clean(row.user), [])
        ways.append("login" if row.by == "login" else clean(row.label) or row.key or "a key")
    lines: list[Line] = [[(f"WHO MAY ({len(users)})", BOLD)]]
    for user, ways in users.items():
        lines.append([fit(user, 27) + " ", (", ".join(ways), DIM)])
    return lines if users else [[("WHO MAY", BOLD)], ["nobody"]]


async def access(page: ModelsPage, target: ModelTarget) -> None:
    """Who may use a model."""
    rows = await page.ask(protocol.MODELS_ACCESS, target)
    if rows is None:
        return
    room = min(44, max(20, page.app.size.width - 58))
    lines: list[Paragraph] = [(f"{fit('USER', room)} {fit('KEY', 11)}{fit('LABEL', 17)}BECAUSE", BOLD)]
    for row in rows:
        because = "every model is allowed" if row.pattern is None else f"pattern {clean(row.pattern)}"
        cells = fit(clean(row.label), 16), because
        lines.append(" ".join((fit(clean(row.user), room), fit(row.key or row.by, 10), *cells)))
    if not rows:
        lines = ["Nobody: no active user, and no key whose patterns let it in."]
    note = (
        "Limits, addresses and expiry of keys may narrow it further. A key keeps its patterns: for others issue a new "
        "one (3, i)."
    )
    await page.lodge.show_text(f"Who may use {target.model}", [*lines, "", (note, DIM)])


async def delete(page: ModelsPage, target: ModelTarget) -> None:
    """From the upstream's disk, once its name was typed."""
    consequences = [
        f"It is deleted from the disk of {target.upstream}; requests for it are then answered with 404.",
        "Pulling it again takes its time. Exchanges in the audit stay.",
    ]
    if not await page.lodge.confirm_by_name(f"Delete the model {target.model}?", consequences, target.model):
        return
    answer = await page.ask(protocol.MODELS_DELETE, target)
    if answer is not None:
        page.say(f"{answer.name} is deleted from {answer.upstream}", "good")
        page.look()


async def pull(page: ModelsPage, upstream: str | None) -> None:
    """Ask which model, then begin."""
    rows = await page.ask(protocol.UPSTREAMS_LIST, Nothing())
    if rows is None:
        return
    ollamas = [row.name for row in rows if row.kind == "ollama"]
    if not ollamas:
        page.say("no Ollama is behind this gateway: the models of its upstreams are fixed", "bad")
        return
    chosen = upstream if upstream in ollamas else ollamas[0]

    fields = [
        Field("model", "Model", hint="llama3.2:3b", check=lambda text: "" if text else "a name, as in llama3.2:3b")
    ]
    if len(ollamas) > 1:
        fields.append(Field("upstream", "Upstream", chosen, choices=ollamas, fixed=True))
    text = [
        "It goes on behind the other pages, as long as this console runs; quitting asks. A pull that was ended goes on "
        "from there when it is pulled again."
    ]
    typed = await page.lodge.fill("Pull a model", fields, text)
    if typed is not None:
        page.begin_pull(typed["model"], typed.get("upstream", chosen))


async def stop_pull(page: ModelsPage, pull_id: str, line: Row) -> None:
    """End a pull, or take a failed one out of the list."""
    pulled = line["row"]["pull"]
    if pulled.problem:
        page.stop_pull(pull_id)
    elif await page.lodge.ask_yes(f"Stop the pull of {pulled.model}? What is there stays; pulling again goes on."):
        page.stop_pull(pull_id)
        page.say(f"the pull of {pulled.model} is stopped")


async def drain(page: ModelsPage, row: Row) -> None:
    """It takes nothing new."""
    name = row["name"]
    if row["drained"]:
        page.say(f"{name} is drained already; u takes it back")
        return
    question = f"Drain {name}? It takes nothing new; {row['running']} run on, {row['queued']} wait."
    if await page.lodge.ask_yes(question):
        answer = await page.ask(protocol.UPSTREAMS_DRAIN, UpstreamTarget(name))
        if answer is not None:
            page.say(f"{name} is drained: {answer.running} still run there")


async def undrain(page: ModelsPage, row: Row) -> None:
    """It takes requests again: nothing to ask about."""
    answer = await page.ask(protocol.UPSTREAMS_UNDRAIN, UpstreamTarget(row["name"]))
    if answer is not None:
        page.say(f"{row['name']} takes requests", "good")


async def probe(page: ModelsPage, row: Row) -> None:
    """How many really run at once; and whether that is to be its seats."""
    name = row["name"]
    if not await page.lodge.ask_yes(f"Probe {name}? Tiny requests tell how many really run at once."):
        return
    page.say(f"probing {name} …")
    answer = await page.ask(protocol.UPSTREAMS_PROBE, UpstreamTarget(name))
    if answer is None:
        return
    found = f"{name} runs {answer.measured} at once"
    if answer.measured == answer.seats:
        page.say(f"{found}, as many as it has seats", "good")
    elif await page.lodge.ask_yes(f"{found}, it has {answer.seats} seats. Set {answer.measured}?"):
        await _set_seats(page, name, answer.measured)
    else:
        page.say(f"{found}; its {answer.seats} seats stay")


async def seats(page: ModelsPage, row: Row) -> None:
    """How many requests it is given at once."""

    def a_number(text: str) -> str:
        return "" if text.isdigit() and 1 <= int(text) <= MOST_SEATS else f"1 to {MOST_SEATS}"

    probed = "" if row["probed_seats"] is None else f"{row['probed_seats']} really run at once"
    field = Field("seats", "Seats", str(row["seats"]), hint=probed, check=a_number)
    paragraphs: list[Paragraph] = [("It is given so many requests at once; the others wait in its queue.", PLAIN)]
    typed = await page.lodge.fill(f"Seats of {row['name']}", [field], paragraphs)
    if typed is not None:
        await _set_seats(page, row["name"], int(typed["seats"]))


async def _set_seats(page: ModelsPage, name: str, number: int) -> None:
    answer = await page.ask(protocol.UPSTREAMS_SEATS, UpstreamsSeats(name, number))
    if answer is not None:
        page.say(f"{name} has {answer.seats} seats", "good")
