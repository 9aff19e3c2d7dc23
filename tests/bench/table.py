"""The table of figures: what is printed of the measurements, in which unit, against which demand."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.load import Result

IDLE = "idle"
NAMES = ("upstream", "nginx", "gatelodge")
Results = Mapping[str, Mapping[str, Sequence[Result]]]


@dataclass(frozen=True)
class Figure:
    """One row: `value` of the measurement `of`; `added` counts from the upstream alone, ratios are to nginx."""

    title: str
    of: str
    value: Callable[[Result], float]
    demand: str = ""
    aim: str = ""
    added: bool = False
    form: str = "{:.1f}"


def cpu(result: Result) -> float:
    """Microseconds of CPU a unit."""
    return 1e6 * result.cpu / result.units if result.units else 0.0


def pace(result: Result) -> float:
    """Units a second."""
    return result.units / result.seconds if result.seconds else 0.0


def age(share: float) -> Callable[[Result], float]:
    """That percentile of the ages, in milliseconds."""
    return lambda result: 1e3 * result.ages[min(int(len(result.ages) * share), len(result.ages) - 1)]


def lost(result: Result) -> float:
    """Answers and chunks that did not come."""
    return float(result.lost)


def memory(result: Result) -> float:
    """MiB."""
    return result.memory


FIGURES = (
    Figure("CPU per small request, 64 at once, us", "requests", cpu, "<= 450, 18x", "<= 250, 10x"),
    Figure("  requests/s", "requests", pace, form="{:.0f}"),
    Figure("  of these lost", "requests", lost, "0", form="{:.0f}"),
    Figure("CPU per small request, streamed, 64 at once, us", "requests_streamed", cpu, "<= 450, 18x", "<= 250, 10x"),
    Figure("  of these lost", "requests_streamed", lost, "0", form="{:.0f}"),
    # Few share a commit then, and every step wakes a process that had gone to sleep.
    Figure("CPU per small request, 8 at once, us", "requests_few", cpu),
    Figure("  of these lost", "requests_few", lost, "0", form="{:.0f}"),
    Figure("CPU per chunk, 20 streams, us", "streams", cpu, "<= 55, 2.5x", "<= 40"),
    Figure("  chunks/s", "streams", pace, "2,000", form="{:.0f}"),
    Figure("  added age p50, ms", "streams", age(0.5), added=True, form="{:.2f}"),
    Figure("  added age p99, ms", "streams", age(0.99), added=True, form="{:.2f}"),
    Figure("  chunks and answers lost", "streams", lost, "0", form="{:.0f}"),
    Figure("CPU per chunk, {streams} streams, us", "streams_many", cpu, "<= 45", "<= 31"),
    Figure("  chunks/s", "streams_many", pace, "10,000 of 500", form="{:.0f}"),
    Figure("  added age p50, ms", "streams_many", age(0.5), added=True, form="{:.2f}"),
    Figure("  added age p99, ms", "streams_many", age(0.99), "<= 5", "<= 2", added=True, form="{:.2f}"),
    Figure("  chunks and answers lost", "streams_many", lost, "0", form="{:.0f}"),
    Figure("CPU per chunk, translated, OpenAI -> Ollama, us", "translated_openai", cpu, "<= twice", "<= 40"),
    Figure("  chunks and answers lost", "translated_openai", lost, "0", form="{:.0f}"),
    Figure("CPU per chunk, translated, Anthropic -> Ollama, us", "translated_anthropic", cpu, "<= twice", "<= 40"),
    Figure("  chunks and answers lost", "translated_anthropic", lost, "0", form="{:.0f}"),
    Figure("CPU per chunk, translated, Ollama -> OpenAI, us", "translated_ollama", cpu, "<= twice", "<= 40"),
    Figure("  chunks and answers lost", "translated_ollama", lost, "0", form="{:.0f}"),
    Figure("added time to first token, 20/s, p50, ms", "first_token", age(0.5), "<= 2", "<= 1", True, "{:.2f}"),
    Figure("added time to first token, 20/s, p99, ms", "first_token", age(0.99), "<= 8", "", True, "{:.2f}"),
    Figure("  of these lost", "first_token", lost, "0", form="{:.0f}"),
    Figure("memory, idle, MiB", IDLE, memory, "<= 60", "<= 45"),
    Figure("memory, {streams} streams, MiB", "streams_many", memory, "<= 100", "<= 75"),
    Figure("client gone -> upstream closed, p99, ms:", "", cpu),
    Figure("  in prefill", "departures_prefill", age(0.99), "<= 10", "<= 1", form="{:.2f}"),
    Figure("  in mid-stream", "departures_mid_stream", age(0.99), "<= 10", "<= 1", form="{:.2f}"),
    Figure("  not streamed", "departures_whole", age(0.99), "<= 10", "<= 1", form="{:.2f}"),
)


def any_lost(results: Results) -> bool:
    """Whether an answer or a chunk did not come, anywhere."""
    return any(each.lost for rows in results.values() for row in rows.values() for each in row)


def printed(figures: Sequence[Figure], results: Results, *, streams: int) -> str:
    """The table of what was measured; a target or a row that was not is left out."""
    names = [name for name in NAMES if name in results]
    last = names[-1]
    head = ["", *names, "x nginx", "x upstream", "demand", "aim"]
    lines = [head]
    for figure in figures:
        title = figure.title.format(streams=streams)
        if not figure.of:
            if any(name.startswith("departures") for name in results[last]):
                lines.append([title] + [""] * (len(head) - 1))
            continue
        if figure.of not in results[last]:
            continue
        values = {name: statistics.median(figure.value(each) for each in results[name][figure.of]) for name in names}
        ratios = ["", ""]
        if figure.value is cpu:
            ratios = [f"{values[last] / values[to]:.1f}" if values.get(to) else "" for to in ("nginx", "upstream")]
        if figure.added:
            alone = values["upstream"]
            cells = [
                f"({figure.form.format(alone)})",
                *(figure.form.format(values[name] - alone) for name in names[1:]),
            ]
        else:
            cells = [figure.form.format(values[name]) for name in names]
        lines.append([title, *cells, *ratios, figure.demand, figure.aim])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(map(_aligned, line, widths, range(len(head)))) for line in lines)


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)
