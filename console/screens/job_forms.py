"""What begins a job, from whichever page: an export, a look at the whole journal, retention.

Rule: before anything is erased a box says what, since when and what stays; its default is No. The job is the daemon's:
none of this waits for its end. Whether anything may be changed now is asked by the key (`Page.may_change`).
"""

from __future__ import annotations

import asyncio
import shlex
import time
from pathlib import Path
from typing import Literal, cast

from common import protocol, times
from common.files import check_place, write_whole
from common.protocol import AuditExport, AuditExported, AuditFilter, Failure, JobsExport, JobsRetention, JobsVerify
from console import entries
from console.client import Client, Refused, Unreachable
from console.filters import read_filter
from console.moments import day_and_time
from console.screens.page import Page, why
from console.screens.table_page import TablePage
from console.searching import problem_of
from console.tables import size
from console.widgets.form import Field

ONLY_LOCAL = ("user", "since", "until")  # what narrows an export that the console itself writes
FORMATS = ("csv", "jsonl")
PATH_ROOM = 72  # cells of the line above a form's keys


def a_moment(text: str) -> str:
    """A moment, or how long ago."""
    try:
        times.moment_of(text, now=time.time_ns() // 1000)
    except ValueError:
        return "90d, or 2026-01-31"
    return ""


def path_of(text: str) -> Path:
    """The file that is meant, wherever this program was started."""
    return Path(text).expanduser().absolute()


def a_file(text: str) -> str:
    """A place for a file; empty is the daemon's own."""
    try:
        path = path_of(text)
        if text and path.is_dir():
            return "that is a folder"
        return "" if not text or path.parent.is_dir() else "there is no such folder"
    except (OSError, RuntimeError, ValueError):  # whose home, an unreadable folder, a NUL
        return "that is no path"


def _whole_path(text: str) -> str:
    """Where it will lie; of a path that is too long the end, which is the file's name."""
    if not text or a_file(text):
        return ""
    path = str(path_of(text))
    return path if len(path) <= PATH_ROOM else "…" + path[1 - PATH_ROOM :]


def _begun(page: Page, job_id: int, does: str) -> None:
    """Say it; on the page of jobs the cursor goes to it, elsewhere is said where it stands."""
    shows = "8"
    if isinstance(page, TablePage) and "job" in page.KINDS:
        page.follow(lambda row_id, _: row_id == str(job_id), made=True)
        page.tick()
        shows = "Enter"
    page.say(f"job {job_id} {does} in the daemon: {shows} shows how far it is", "good")


async def export(page: Page, search: str = "") -> None:
    """Ask what, in which form and where to; then begin it."""
    fields = [
        Field("search", "What", search, hint=_what, check=problem_of, wide=True),
        Field("format", "Format", "csv", hint="csv or jsonl", choices=FORMATS, fixed=True),
        Field("file", "File", "", hint=_where, check=a_file, below=_whole_path, wide=True),
    ]
    text = [
        "Prompts and answers go into the file. Without a file name the daemon writes it into its own folder of "
        "exports, as a job: that goes on when you leave.",
        "With one, it is written on this machine with your rights (0600), as long as this console runs; it takes "
        "user:, since: and until: only.",
    ]

    async def begin(typed: dict[str, str]) -> None:
        wanted = read_filter(shlex.split(typed["search"]))
        form = cast(Literal["csv", "jsonl"], typed["format"])
        if typed["file"]:
            page.begin(_to_file(page, _local(wanted, form), path_of(typed["file"])), group="export")
            return
        row = await page.attempt(protocol.JOBS_EXPORT, JobsExport(filter=wanted, format=form))
        _begun(page, row.id, f"exports {row.target}")

    await page.fill_until_done("Export exchanges", fields, text, begin)


def _what(text: str) -> str:
    return "" if text else "empty: everybody's"


def _where(text: str) -> str:
    return "" if text else "empty: the daemon's folder"


def _local(wanted: AuditFilter, form: Literal["csv", "jsonl"]) -> AuditExport:
    """The question of an export to a file here. Refused, in words, where the filter says more than it can."""
    more = [name for name in wanted.__struct_fields__ if getattr(wanted, name) and name not in ONLY_LOCAL]
    if more:
        words = f"a file here takes user:, since: and until: only, not {more[0]}:; leave File empty for a job"
        raise Refused(Failure(words, "invalid_request"), 400)
    return AuditExport(user=wanted.user, since=wanted.since, until=wanted.until, format=form)


async def _to_file(page: Page, question: AuditExport, path: Path) -> None:
    """Write an export on this machine, and have the daemon compare what lies there."""
    if path.exists() and not await page.lodge.ask_yes(f"{path} is there already. Replace it?"):
        return
    page.say(f"writing {path} …")

    def write() -> AuditExported:
        check_place(path)
        client = Client(page.lodge.channel.path)
        with client.download(protocol.AUDIT_EXPORT, question) as download:
            digest, size_ = write_whole(path, download)
            return AuditExported(export=download.export, sha256=digest, bytes=size_, file=str(path))

    try:
        told = await asyncio.to_thread(write)
        report = await page.attempt(protocol.AUDIT_EXPORTED, told)
    except (Refused, Unreachable) as error:
        page.say(f"not exported: {why(error)}", "bad")
    except OSError as error:
        page.say(f"not exported: cannot write {path}: {error.strerror or error}", "bad")
    else:
        page.say(f"exported, verified: {size(report.bytes)}, sha256 {report.sha256[:12]}… in {path}", "good")


async def verify(page: Page) -> None:
    """Look at the whole journal, as a job."""
    if not await page.lodge.ask_yes("Verify the whole journal, as a job? It reads all of it."):
        return
    row = await page.ask(protocol.JOBS_VERIFY, JobsVerify())
    if row is not None:
        _begun(page, row.id, "verifies the journal")


async def retention(page: Page) -> None:
    """Erase old bodies: before when, then what that means, then begin."""
    fields = [
        Field("before", "Older than", "90d", hint=_before, check=a_moment),
        Field("exported", "Exported already", "no", hint="yes: no new file", choices=entries.NO_OR_YES, fixed=True),
    ]
    typed = await page.lodge.fill(
        "Retention: erase old prompts and answers",
        fields,
        ["Nothing is erased yet: the next question says what will be."],
    )
    if typed is None:
        return
    before = times.iso(times.moment_of(typed["before"], now=time.time_ns() // 1000))
    exported = entries.is_yes(typed["exported"])
    first = (
        "No file is written: erased is what a verified JSONL export of everybody holds already."
        if exported
        else "First they are exported as JSONL into the daemon's folder, and the file is read back and verified."
    )
    consequences = [
        f"All prompts and answers received before {day_and_time(before)}, of every user.",
        first,
        "Then they are erased from the journal. That cannot be taken back.",
        "Who asked when for which model stays, and so does the chain: it still verifies.",
    ]
    if not await page.lodge.confirm("Erase these prompts and answers?", consequences):
        return
    row = await page.ask(protocol.JOBS_RETENTION, JobsRetention(before=before, exported=exported))
    if row is not None:
        _begun(page, row.id, "exports, verifies and erases")


def _before(text: str) -> str:
    try:
        return "before " + day_and_time(times.iso(times.moment_of(text, now=time.time_ns() // 1000)))
    except ValueError:
        return ""
