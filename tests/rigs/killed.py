"""A process that admits and records requests as the relay does, and is killed by SIGKILL in the midst of it.

`python -m tests.rigs.killed FOLDER ADMITTED GIVEN_BACK SETTLED`: so many are admitted, of these so many give their
place back, and so many end well with 18 tokens; the others are open at the moment of death.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from daemon.config import Limits as Seed
from daemon.exchange import EndState
from daemon.traffic.admission import Admission, Subject
from daemon.traffic.limits import Limits
from daemon.traffic.seats import Seats
from tests.rigs.journals import ANA, desk_in


async def main(folder: Path, admitted: int, given_back: int, settled: int) -> None:
    """Never returns."""
    async with desk_in(folder) as desk:
        limits = await Limits.load(
            desk.database, desk.clock, seed=Seed(requests_per_minute=100), user_exists=bool, key_exists=bool
        )
        admission = Admission(limits, desk.clock)
        seats = Seats("up", 1000, queue_size=1, per_user=1, longest_wait=1)
        for number in range(admitted):
            ticket = admission.admit(Subject(1, ANA, "k1", "llama3.2:latest", "192.0.2.7"), seats)
            exchange = desk.exchange(admitted_clock=ticket.admitted_clock)
            await desk.journal.opened(exchange)
            if number < given_back:
                exchange.state = EndState.CLIENT_LEFT
                admission.give_back(ticket)
                await desk.journal.closed(exchange, [])
            elif number < given_back + settled:
                admission.spend_tokens(ticket, 18)
                await desk.end(exchange, EndState.OK, "Because.")
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
