"""A daemon's journal without the daemon, to be killed: `python -m tests.rigs.journal_driver FOLDER`.

Many exchanges at once, for ever; each step that the journal acknowledged is a line on standard output, written with
one system call right after the acknowledgement: `open ID`, `end ID STATE`. What the reader of the pipe has, was
acknowledged; what was acknowledged in the last microseconds may be missing there, which only makes the test milder.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from daemon.exchange import EndState
from tests.rigs.journals import Desk, desk_in, finish, streamed

AT_ONCE = 8
ENDS = [EndState.OK] * 6 + [EndState.CLIENT_LEFT, EndState.UPSTREAM_ERROR]


async def drive(desk: Desk, dice: random.Random, number: int) -> None:
    """One exchange after the other."""
    texts: list[str] = []
    while True:
        texts = [*texts[-6:], f"{number} asks {dice.random()}"]
        user_id = 1 + number % 2
        exchange = desk.exchange(*texts, user_id=user_id)
        await desk.journal.opened(exchange)
        say(f"open {exchange.request_id}")
        pieces = streamed(f"{number} says {dice.random()} and so on")
        for piece in pieces[:-1]:
            if dice.random() < 0.3:
                await desk.journal.flush_partials([(exchange.request_id, piece)])
        state = dice.choice(ENDS)
        finish(exchange, state, desk.clock)
        await desk.journal.closed(exchange, pieces[-1:])
        say(f"end {exchange.request_id} {state.value}")
        texts.append("and so on")


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def main() -> None:
    """Recover as the daemon does, then drive until killed."""
    async with desk_in(Path(sys.argv[1])) as desk:
        await desk.journal.recover()
        say("ready")
        dice = random.Random()
        await asyncio.gather(desk.journal.run(tick=0.05), *(drive(desk, dice, n) for n in range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(main())
