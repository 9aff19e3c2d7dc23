"""The frame around every screen: the head, the pending badge, the digits; the daemon may go and come back meanwhile."""

from __future__ import annotations

from pathlib import Path

from console.app import Lodge
from console.screens import TABS
from tests.rigs.console import frame_of
from tests.rigs.showcase import registrations, showcase
from tests.rigs.until import until

DETAILS = {  # what one reads over a page: the page, the keys that lead to it from there, and words of it
    "exchange": ("live", ("enter",), "PROMPT"),
    "audited": ("audit", ("enter",), "chk-2026-03"),
    "administrators": ("audit", ("L",), "What administrators did"),
    "key": ("keys", ("enter",), "good for"),
    "limits": ("limits", ("enter",), "limits of "),
    "help": ("live", ("question_mark",), "Everywhere"),
    "help of a detail": ("live", ("enter", "question_mark"), "Here"),
}


async def sees(app: Lodge, *words: str) -> str:
    """Wait until all of these words are on the screen; the frame."""
    try:
        await until(lambda: all(word in frame_of(app) for word in words), timeout=15)
    except AssertionError:
        raise AssertionError(f"{words!r} did not come:\n{frame_of(app)}") from None
    return frame_of(app)


async def test_whatever_one_reads_has_the_head_and_the_digits_lead_on(tmp_path: Path) -> None:
    """LIVE, the counters and who waits to be let in stand over every detail; a digit goes to that page from there."""
    async with showcase(tmp_path, size=(80, 24)) as (app, pilot, daemon):
        waiting = 2
        for name, (page, keys, words) in DETAILS.items():
            await app.go_to(page)
            await until(lambda: app.main.tick() or app.main.page.chosen, timeout=15, what=page)  # type: ignore[union-attr]
            await pilot.press(*keys)
            frame = await sees(app, words, "● LIVE", "run 7/12", f"2 Users({waiting})", "Esc Back", ": Command")
            assert len(app.screen_stack) == 1 + len(keys), name
            assert frame.split("\n")[2].rstrip().endswith("8 Jobs"), name
            waiting += 1
            daemon.put("registration", f"NEW{waiting}", registrations()[0])
            daemon.send()
            await sees(app, f"2 Users({waiting})", words)
            tab = TABS[7] if page != "jobs" else TABS[6]
            await pilot.press(tab.digit)
            await sees(app, f"[{tab.digit} {tab.title}]")
            assert len(app.screen_stack) == 1, name
            assert not [worker for worker in app.workers if worker.group == "action"], f"{name}: who waited goes on"
