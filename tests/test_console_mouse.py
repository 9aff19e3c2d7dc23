"""The console with the mouse alone: tabs, rows, titles, the wheel, keys in the footer, answers to questions."""

from __future__ import annotations

from pathlib import Path

from textual.widgets import Input

from console.cells import cell_len
from console.palette import KEY
from console.widgets.clicks import key_at
from console.widgets.lines import Line
from tests.rigs.console import Seat, open_seat
from tests.rigs.gatehouse import ADMIN
from tests.rigs.until import until

ANA = "ana@example.org"
MANY = 30


def place(seat: Seat, words: str) -> tuple[int, int]:
    """Where these words stand on the screen, from below: what is asked stands below what it is about."""
    lines = seat.frame().split("\n")
    for y in reversed(range(len(lines))):
        if words in lines[y]:
            return cell_len(lines[y][: lines[y].index(words)]), y
    raise AssertionError(f"{words!r} is not on the screen:\n{seat.frame()}")


async def click(seat: Seat, words: str, *, times: int = 1) -> None:
    """Click on the beginning of these words, once they are there."""
    await seat.sees(words)
    await seat.pilot.pause()  # laid out as it stays
    await seat.pilot.click(offset=place(seat, words), times=times)


async def test_the_console_is_led_with_the_mouse(tmp_path: Path) -> None:
    """Whatever is written as a key can be clicked; a question keeps the keys wherever one clicks."""
    async with open_seat(tmp_path) as seat:
        for number in range(MANY):
            await seat.office.gate.house.directory.add_user(ADMIN, f"u{number:02}@example.org")
        await click(seat, "2 Users")
        await seat.sees("[2 Users]", ANA, "u05@example.org")

        await click(seat, "u03@example.org")
        await seat.sees(">active       u03@example.org")
        await click(seat, "USER▲  ")
        await seat.sees("USER▼  ", ">active       u03@example.org")
        table = seat.app.main.page.table  # type: ignore[union-attr]
        before = table.top
        await seat.pilot._post_mouse_events([_wheel()], offset=(20, 10))
        assert table.top < before

        await click(seat, "d Disable")
        await seat.sees("Disable u", "[N] no")
        asked = seat.line("Disable u")
        await seat.pilot.click(offset=(20, 8))  # a row: no answer
        await until(lambda: not seat.app.main.prompt.has_just_asked)
        await click(seat, "1 Live")
        await seat.sees(asked, "[2 Users]")
        await click(seat, "[N] no")
        await seat.loses("[y] yes")
        assert "Notes on" not in seat.frame()
        await seat.press("j")
        await click(seat, "d Disable")
        await seat.sees("[y] yes")
        await click(seat, "[y] yes")
        await seat.sees("is disabled", "e Enable")  # the keys stand as they will for this row

        await click(seat, "c Create")
        await seat.sees("Create a user")
        await click(seat, "Role:")
        await seat.pilot.click("#field-role")
        assert seat.app.screen.focused is seat.app.screen.query_one("#field-role", Input)
        await click(seat, "Esc give up")
        await seat.loses("Create a user")

        await seat.pilot.click(offset=(5, 22))  # where questions stand: the keys stay with the rows
        assert seat.app.screen.focused is table
        await click(seat, "? Help")
        await seat.sees("Keys", "Esc Back")
        await click(seat, "Esc Back")
        await click(seat, "3 Keys")
        await seat.sees("[3 Keys]", "ana@exam")
        await click(seat, "ana@exam", times=2)
        await seat.sees("good for", "Esc Back")
        await click(seat, "Esc Back")
        await click(seat, "R Revoke")
        await seat.sees("Revoke the key", "[N] no")
        await click(seat, "yes, do it")
        await seat.sees("is revoked")


def _wheel() -> type:
    from textual import events

    return events.MouseScrollUp


def test_a_click_presses_the_key_that_is_written_there() -> None:
    """By its name or by the words behind it; what stands before, between and after them is no key."""
    line: Line = ["Type ", ("[y]", KEY), " yes  ", ("[N]", KEY), " no   ", ("Esc", KEY), " back", ("↑↓", KEY), " field"]
    written = "".join(part if isinstance(part, str) else part[0] for part in line)
    pressed = {x: key_at(line, x) for x in range(len(written) + 2)}
    assert {pressed[written.index(words)] for words in ("[y]", "yes")} == {"y"}
    assert {pressed[written.index(words)] for words in ("[N]", "no ")} == {"n"}
    assert {pressed[written.index(words)] for words in ("Esc", "back")} == {"escape"}
    assert {pressed[x] for x in (0, written.index("  ["), written.index("↑"), len(written) - 1, len(written))} == {None}
