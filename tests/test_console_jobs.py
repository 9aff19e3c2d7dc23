"""The Jobs page under a pilot, against a real daemon: begin, watch, cancel, fail, lose the daemon in mid-question."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import Input

from common import protocol
from daemon.jobs.job import Job
from tests.rigs.console import Seat, open_seat
from tests.rigs.keeping import ROOT
from tests.rigs.until import until


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick of a fortieth of a second: what is tested is what comes, not how often it is drawn."""
    monkeypatch.setattr("console.screens.framed.TICK", 0.025)


@asynccontextmanager
async def jobs_page(tmp_path: Path, *, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Seat]:
    """A console on its Jobs page."""
    async with open_seat(tmp_path, size=size) as seat:
        await seat.press("8")
        await seat.sees("[8 Jobs]")
        yield seat


def fill(seat: Seat, **texts: str) -> None:
    """Put texts into the fields of the form in sight, all at once."""
    for name, text in texts.items():
        seat.app.screen.query_one(f"#field-{name}", Input).value = text


async def running_job(seat: Seat, *, target: str = "user:ana@example.org") -> tuple[Job, asyncio.Event]:
    """A job that stands at 5 of 10 until the event."""
    go_on = asyncio.Event()

    async def work(job: Job) -> None:
        job.advance("exporting", 5, 10, "exchanges")
        await go_on.wait()

    job = await seat.office.gate.house.keeping.jobs.start("export", work, actor=ROOT, target=target)
    return job, go_on


async def test_an_export_is_begun_and_its_file_is_told(tmp_path: Path) -> None:
    """`e`: what, which form; the row tells size and path when it is done, Enter the checksum."""
    async with jobs_page(tmp_path) as seat:
        await seat.office.gate.chat()
        await seat.sees("No jobs yet. A job belongs to the daemon")
        await seat.press("e")
        await seat.sees("Export exchanges", "empty: everybody's")
        fill(seat, search="user:nobody@example.org")
        await seat.press("enter")
        await seat.sees("Not done: there is no user nobody@example.org")
        fill(seat, search="since:x")
        await seat.sees("neither a duration")
        fill(seat, search="since:1h")
        await seat.press("enter")
        await seat.sees("Enter shows how")
        await seat.sees("done", "1 exchange written and read back", "since:", timeout=20)
        row = next(iter(seat.app.link.mirror.rows["job"].values()))
        await seat.press("enter")
        await seat.sees(row["sha256"], Path(row["path"]).name, "took", "y Copy the path")
        copied: list[str] = []
        seat.app.copy_to_clipboard = copied.append  # type: ignore[method-assign]
        await seat.press("y")
        await until(lambda: copied == [row["path"]])
        assert Path(row["path"]).stat().st_mode & 0o777 == 0o600


async def test_an_export_to_a_file_here_is_verified_by_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a file name the console writes it itself, 0600; what such an export cannot narrow is said in the form."""
    async with jobs_page(tmp_path) as seat:
        await seat.office.gate.chat()
        await seat.press("e")
        await seat.sees("Export exchanges")
        file = tmp_path / "out.jsonl"
        monkeypatch.chdir(tmp_path)
        fill(seat, file="nowhere/out.jsonl")
        await seat.sees("there is no such folder")
        fill(seat, search="model:smollm2:135m", format="jsonl", file="out.jsonl")
        await seat.press("up")  # from the first field to the last, whose whole path is told
        whole = str(file) if len(str(file)) <= 72 else str(file)[-71:]
        await seat.sees(whole)
        await seat.press("enter")
        await seat.sees("not model:")
        fill(seat, search="user:ana@example.org")
        await seat.press("enter")
        await seat.sees("exported, verified", timeout=20)
        assert seat.app.main.prompt._sentence[0].endswith(f" in {file}")
        assert json.loads(file.read_text())["prompt"] == "Why?"
        assert file.stat().st_mode & 0o777 == 0o600


async def test_a_running_job_shows_how_far_it_is_and_is_cancelled_by_name(tmp_path: Path) -> None:
    """A bar and a percentage; `c` asks, naming job and target; anything but `y` leaves it."""
    async with jobs_page(tmp_path) as seat:
        job, _ = await running_job(seat)
        await seat.sees("running", "50%", "exporting", "████")
        await seat.press("enter")
        frame = await seat.sees("Job 1: export of user:ana@example.org", "5 of 10 exchanges")
        assert "Copy the path" not in frame
        job.advance("exporting", 9, 10, "exchanges")
        await seat.sees("9 of 10 exchanges", " 90%")  # one reads on while it goes on
        await seat.press("escape", "c")
        await seat.sees(f"Cancel job {job.id} (export of user:ana@example.org)?", "[N] no")
        await seat.press("n")
        await seat.loses("Cancel job")
        assert not job.is_over
        await seat.press("c", "y")
        await seat.sees("is cancelled", "cancelled")
        assert job.stored.state == "cancelled"
        await seat.press("c")
        await seat.sees("is cancelled already")


async def test_the_question_is_about_the_job_of_the_key_press(tmp_path: Path) -> None:
    """Between `c` and `y` it ended and another one stands there: that one goes on, and it is said."""
    async with jobs_page(tmp_path) as seat:
        first, go_on = await running_job(seat)
        await seat.sees("50%")
        await seat.press("c")
        await seat.sees("Cancel job")
        go_on.set()
        await until(lambda: first.is_over)
        second, _ = await running_job(seat, target="everybody")
        await seat.sees("everybody")
        await seat.press("y")
        await seat.sees(f"job {first.id} is done already")
        assert not second.is_over


async def test_a_verification_is_begun_and_a_failed_one_says_why(tmp_path: Path) -> None:
    """`v` `y`; what fails stands in the list with its reason."""
    async with jobs_page(tmp_path, size=(120, 30)) as seat:
        await seat.office.gate.chat()
        await seat.press("v")
        await seat.sees("Verify the whole journal")
        await seat.press("y")
        await seat.sees("done", "intact", timeout=20)
        table = seat.app.main.page.table  # type: ignore[union-attr]
        await seat.press("v", "y")
        await until(lambda: len(table.ids) == 2, what="the second job is in the list")
        await until(lambda: table.cursor_id == max(table.ids, key=int), what="what was begun is under the cursor")

        async def work(_: Job) -> None:
            raise RuntimeError("[/] \x1b[2J")

        await seat.office.gate.house.keeping.jobs.start("verify", work, actor=ROOT, target="\x1b]0;x\x07[@click=app.q]")
        frame = await seat.sees("failed", "\\x1b]0;x")
        assert "\x1b" not in frame


async def test_retention_says_what_it_erases_before_it_does(tmp_path: Path) -> None:
    """A form, then consequences with a default of No; only `y` erases, and who asked stays."""
    async with jobs_page(tmp_path) as seat:
        await seat.office.gate.chat()
        await seat.press("R")
        await seat.sees("Retention: erase old prompts", "Nothing is erased yet")
        fill(seat, before="0s")
        await seat.press("enter")
        await seat.sees("Erase these prompts and answers?", "cannot be taken back", "[N] no")
        await seat.press("enter")
        await seat.loses("Erase these")
        assert not seat.app.link.mirror.rows["job"]
        await seat.press("R")
        await seat.sees("Retention: erase old prompts")
        fill(seat, before="0s")
        await seat.press("enter")
        await seat.sees("Erase these")
        await seat.press("y")
        await seat.sees("retention", "done", timeout=20)
        (record,) = await seat.office.gate.records()
        assert record.user == "ana@example.org"
        assert (await seat.office.gate.audit(record.request_id)).erased


async def test_a_daemon_lost_in_mid_question_changes_nothing_and_the_place_is_kept(tmp_path: Path) -> None:
    """The question stands; `y` says that nothing is changed; when the daemon is back the cursor is on its job."""
    async with jobs_page(tmp_path) as seat:
        for number in range(3):
            await seat.office.ask(protocol.JOBS_VERIFY, protocol.JobsVerify())
            await seat.sees(f"{number + 1} of {number + 1}")
        await until(lambda: all(row["state"] == "done" for row in seat.app.link.mirror.rows["job"].values()))
        job, _ = await running_job(seat)
        await seat.sees("50%")
        await seat.press("g", "c")
        await seat.sees("Cancel job")
        seat.app.link._lose("gone for a test")
        seat.app.channel.path = tmp_path / "nowhere"
        await seat.press("y")
        await seat.sees("nothing is changed while the daemon is away")
        assert not job.is_over
        seat.app.channel.path = seat.office.socket
        await seat.press("j")
        table = seat.app.main.page.table  # type: ignore[union-attr]
        place = table.cursor_id
        seat.app.link.state = "live"
        seat.app.main.tick()
        await seat.sees("● LIVE")
        assert table.cursor_id == place


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (200, 60)])
async def test_every_line_fits(tmp_path: Path, size: tuple[int, int]) -> None:
    """At every size, with a long target; what came of a job is told whole."""
    async with jobs_page(tmp_path, size=size) as seat:

        async def work(job: Job) -> None:
            job.stored = job.stored._replace(result="12345 exchanges written and read back")

        await seat.office.gate.house.keeping.jobs.start("export", work, actor=ROOT, target="everybody")
        await seat.sees("done", "12345 exchanges written and read back", "export")
        await running_job(seat, target="text:" + "模型" * 200)
        await seat.sees("running", "50%")
        assert all(len(line) <= size[0] for line in seat.frame().split("\n"))
