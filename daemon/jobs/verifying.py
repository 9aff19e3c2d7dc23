"""A look at the whole journal, as a job."""

from __future__ import annotations

from contextlib import aclosing

from daemon.audit.child import read_lines
from daemon.audit.journal import Journal
from daemon.jobs.job import Job, JobFailed
from daemon.jobs.lines import Progress, Verified, decode

MOST_TOLD = 10  # problems in the row of a job; `audit verify` tells more


async def verify(job: Job, journal: Journal, expect: str | None) -> None:
    """JobFailed, with the problems, where the journal is not intact."""
    arguments = await journal.to_verify(expect)
    async with aclosing(read_lines("check", arguments)) as lines:
        async for line in lines:
            match decode(line):
                case Progress() as progress:
                    job.note(progress)
                case Verified(report):
                    job.stored = job.stored._replace(
                        records=report.records,
                        result=f"{'intact' if report.intact else 'CHANGED'}, {report.unsealed} unsealed, "
                        f"head {report.head_seq}:{report.head_hash}",
                    )
                    if not report.intact:
                        more = len(report.problems) - MOST_TOLD
                        told = [*report.problems[:MOST_TOLD], *([f"and {more} more"] if more > 0 else [])]
                        raise JobFailed("the journal was changed: " + "; ".join(told), code="not_intact")
