"""The lines of the Models page: upstreams, models and pulls as one kind of row, and all that is known of each. Pure."""

from __future__ import annotations

from typing import Any

from rich.style import Style

from common import times
from console.columns import Column
from console.figures import bytes_of, progress
from console.mirror import Row
from console.moments import age, time_left
from console.palette import BAD, BOLD, GOOD, PLAIN, WAITING, WARNING
from console.pulls import Pull
from console.widgets.plots import bar

BAR = 5  # cells of a pull's progress in its line
STATES = {"ok": GOOD, "down": BAD, "unknown": WARNING, "drained": WARNING, "loaded": GOOD, "failed": BAD}


def _delay(milliseconds: float | None) -> str:
    """`12ms`, `1.3s`; empty where it is not known."""
    if milliseconds is None:
        return ""
    return f"{milliseconds:.0f}ms" if milliseconds < 999.5 else f"{milliseconds / 1000:.1f}s"


def upstream_line(row: Row, order: int) -> Row:
    """An upstream as a line of the table."""
    state = "drained" if row["drained"] and row["state"] == "ok" else row["state"]
    about = " ".join(str(each) for each in (row["kind"], row["version"]) if each)
    told = (row["error"] or row["last_error"] or "").removeprefix(f"the upstream {row['name']} ")
    if told:
        about = told if row["error"] else f"{about}; last error: {told}"
    return {
        "kind": "upstream",
        "group": (order, 0),
        "upstream": row["name"],
        "state": state,
        "busy": f"{row['running']}/{row['seats']}" + (f"+{row['queued']}" if row["queued"] else ""),
        "latency": row["latency_ms"],
        "name": row["name"],
        "size": None,
        "vram": row["vram"] or None,
        "until": "",
        "about": about,
        "style": BAD if row["error"] else PLAIN,
        "row": row,
    }


def model_line(row: Row, order: int, now: float) -> Row:
    """A model as a line of the table; `now` is Unix seconds."""
    about = " ".join(str(each) for each in (row["parameters"], row["quantization"], row["family"]) if each)
    return {
        "kind": "model",
        "group": (order, 2),
        "upstream": row["upstream"],
        "state": {True: "loaded", False: "idle", None: "-"}[row["loaded"]],
        "busy": "",
        "latency": None,
        "name": f"  {row['name']}",
        "size": row["size"],
        "vram": row["vram"] or None,
        "until": time_left(row["expires"], now, never="") if row["loaded"] else "",
        "about": ("default, " if row["default"] else "") + about,
        "style": PLAIN,
        "row": row,
    }


def pull_line(pull: Pull, upstream: str, order: int) -> Row:
    """A pull as a line of the table."""
    return {
        "kind": "pull",
        "group": (order, 1),
        "upstream": upstream,
        "state": pull.state,
        "busy": "",
        "latency": None,
        "name": f"  {pull.model}",
        "size": pull.total,
        "vram": None,
        "until": "",
        "about": pull.words() if pull.problem else f"{bar(pull.part or 0.0, BAR)} {pull.words()}",
        "style": BAD if pull.problem else PLAIN,
        "row": {"pull": pull},
    }


def facts_of(line: Row, now: float) -> list[tuple[str, str, Style]]:
    """What is known of a line: name, value, style; `now` is Unix seconds."""
    row = line["row"]
    if line["kind"] == "pull":
        pull: Pull = row["pull"]
        found: list[tuple[str, Any, Style]] = [
            ("progress", progress(pull.part, 30), GOOD),
            ("step", pull.status, PLAIN),
            ("done", f"{bytes_of(pull.done)} of {bytes_of(pull.total)}", PLAIN),
            ("left", pull.words(), line["style"]),
        ]
    elif line["kind"] == "model":
        found = [
            ("upstream", row["upstream"], PLAIN),
            ("state", line["state"] + (", the default model" if row["default"] else ""), PLAIN),
            ("size", None if row["size"] is None else bytes_of(row["size"]), PLAIN),
            ("memory", None if not row["memory"] else bytes_of(row["memory"]), PLAIN),
            ("on the GPU", None if not row["vram"] else bytes_of(row["vram"]), PLAIN),
            ("unloads", line["until"], PLAIN),
            ("context", row["context"] and f"{row['context']} tokens", PLAIN),
            ("about", line["about"], PLAIN),
            ("modified", f"{age(row['modified'], now)} ago" if _is_moment(row["modified"]) else None, PLAIN),
        ]
    else:
        probed = "never probed (P)" if row["probed_seats"] is None else f"{row['probed_seats']} really run at once"
        found = [
            ("state", line["state"], STATES.get(line["state"], PLAIN)),
            ("error", row["error"], BAD),
            ("last error", row["last_error"] if not row["error"] else None, WARNING),
            ("kind", " ".join(str(each) for each in (row["kind"], row["version"]) if each), PLAIN),
            ("address", row["url"], PLAIN),
            ("latency", None if row["latency_ms"] is None else f"{row['latency_ms']:.1f} ms", PLAIN),
            ("seats", f"{row['seats']}, {probed}", PLAIN),
            ("running", f"{row['running']}, {row['queued']} queued", PLAIN),
            ("models", f"{row['models'] or 0}, {row['loaded'] or 0} loaded", PLAIN),
            ("VRAM", None if not row["vram"] else bytes_of(row["vram"]), PLAIN),
        ]
    return [(name, str(value), style) for name, value, style in found if value not in (None, "")]


def _is_moment(text: str | None) -> bool:
    try:
        return text is not None and times.from_iso(text) > 0
    except ValueError:
        return False


COLUMNS: tuple[Column, ...] = (
    Column("STATE", lambda line: (line["state"], STATES.get(line["state"], WAITING)), 8),
    Column("BUSY", lambda line: line["busy"], 6, right=True),
    Column("DELAY", lambda line: _delay(line["latency"]), 5, right=True, rank=1),
    Column(
        "NAME",
        lambda line: (line["name"], BOLD) if line["kind"] == "upstream" else line["name"],
        17,
        most=44,
        sort=lambda line: line["name"],
    ),
    Column(
        "SIZE",
        lambda line: "" if line["size"] is None else bytes_of(line["size"]),
        7,
        right=True,
        sort=lambda line: line["size"],
        descending=True,
    ),
    Column("VRAM", lambda line: "" if line["vram"] is None else bytes_of(line["vram"]), 7, right=True, rank=2),
    Column("UNLOADS", lambda line: line["until"], 7, right=True, rank=3),
    Column("ABOUT", lambda line: (line["about"], line["style"]), 15, most=60),
)
