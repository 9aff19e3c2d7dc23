"""A daemon's journal on the recording disk: `python -m tests.rigs.power_driver FOLDER EXCHANGES FULL|NORMAL`.

Recovers what lies there, as the daemon does; then so many exchanges, four at once, answers set down while they run,
the write-ahead log moved every few pages. What the journal acknowledged stands in the recording as ("opened", id) and
("closed", id, state), behind what it took; it is pickled to FOLDER/recording. NORMAL is what the daemon refuses: the
control that shows that the rig can see.
"""

from __future__ import annotations

import asyncio
import pickle
import random
import sys
from pathlib import Path

from daemon.exchange import EndState
from tests.rigs.journals import Desk, desk_in, finish, streamed
from tests.rigs.recording_vfs import CannotRecord, Log, record

AT_ONCE = 4
PAGES = 60  # of the write-ahead log until it is moved into the database: several times in a run
CANNOT = 77


async def converse(desk: Desk, log: Log, dice: random.Random, number: int) -> None:
    exchange = desk.exchange(f"{number} asks {dice.random()} " + "and more " * dice.randrange(400))
    await desk.journal.opened(exchange)
    log.append(("opened", exchange.request_id))
    pieces = streamed(f"{number} says {dice.random()} and so on")
    for piece in pieces[:-1]:
        if dice.random() < 0.3:
            await desk.journal.flush_partials([(exchange.request_id, piece)])
    state = dice.choice([EndState.OK, EndState.OK, EndState.CLIENT_LEFT])
    finish(exchange, state, desk.clock)
    await desk.journal.closed(exchange, pieces[-1:])
    log.append(("closed", exchange.request_id, state.value))


async def main(folder: Path, exchanges: int, synchronous: str) -> None:
    log: Log = []
    record(log)
    dice = random.Random(exchanges)
    async with desk_in(folder) as desk:

        def set_up(conn: object) -> None:
            conn.execute(f"PRAGMA wal_autocheckpoint = {PAGES}")  # type: ignore[attr-defined]
            if synchronous != "FULL":
                conn.execute(f"PRAGMA synchronous = {synchronous}")  # type: ignore[attr-defined]

        await desk.database._writer.run(set_up)
        await desk.journal.recover()
        running = asyncio.create_task(desk.journal.run(tick=0.02))
        for first in range(0, exchanges, AT_ONCE):
            await asyncio.gather(*(converse(desk, log, dice, first + n) for n in range(AT_ONCE)))
            if dice.random() < 0.2:
                await desk.journal.checkpoint()
        running.cancel()
        # Before the orderly close, which would move everything into the database.
        (folder / "recording").write_bytes(pickle.dumps(log))


if __name__ == "__main__":
    try:
        asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
    except CannotRecord as reason:
        print(reason)
        sys.exit(CANNOT)
