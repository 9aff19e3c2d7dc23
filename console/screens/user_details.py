"""What is known of one user, in lines: for the pane beside the table and for the box that Enter opens. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from console.mirror import Row
from console.moments import age, day_and_time, time_left
from console.palette import DIM, PLAIN, WARNING
from console.widgets.facts import facts, title
from console.widgets.gauges import gauges
from console.widgets.lines import Line

MOST_KEYS = 12  # in the pane


def how_to_register(address: str, then: str) -> tuple[str, ...]:
    """What is told where nobody has registered yet: the very request, in lines that stand whole at 80 columns."""
    return (
        "Nobody has registered yet. Whoever is to come in sends this, once:",
        "",
        f"  POST {address or 'http://HOST:7000'}/auth/register",
        '  {"email": "you@example.org", "password": "…"}',
        "",
        then,
    )


def role_of(row: Row) -> str:
    """`user`, `admin` or `service`; a service account that administers is both."""
    if row["service"]:
        return "service" if row["role"] == "user" else "svc adm"
    return str(row["role"])


def user_lines(row: Row, keys: Sequence[Row], running: int, now: float, *, room: int | None = None) -> list[Line]:
    """The user, with the keys; a registration says what to do with it. `room`: see `facts`."""
    if row["status"] == "pending":
        return [
            title("WAITS TO BE LET IN"),
            *facts(
                [
                    ("user", row["email"]),
                    ("code", row["code"], WARNING),
                    ("from", row["address"]),
                    ("registered", f"{day_and_time(row['created'])}, {age(row['created'], now)} ago"),
                ],
                room=room,
            ),
            [],
            ["Ask them for their code: it tells them from"],
            ["somebody else who took their address."],
        ]
    lines = [
        title("USER"),
        *facts(
            [
                ("user", row["email"]),
                ("state", row["status"], WARNING if row["status"] == "disabled" else PLAIN),
                ("password", "must set a new one" if row["must_change_password"] else "", WARNING),
                ("role", role_of(row)),
                ("running", running or ""),
                ("since", day_and_time(row["created"])),
                ("let in", day_and_time(row["approved"])),
                ("notes", row["notes"]),
            ],
            room=room,
        ),
        [],
        title(f"KEYS ({len(keys)})"),
    ]
    return lines + key_lines(keys[:MOST_KEYS], now) + _more(len(keys) - MOST_KEYS)


def key_lines(keys: Iterable[Row], now: float) -> list[Line]:
    """A line a key: state, label, last use."""
    return [
        [
            (f"{key_state(key, now):<10}", DIM if key_state(key, now) != "active" else PLAIN),
            f"{key['label']}  ",
            (f"…{key['id'][-4:]}  {_use(key, now)}", DIM),
        ]
        for key in keys
    ]


def _use(key: Row, now: float) -> str:
    return f"used {age(key['last_used'], now)} ago" if key["last_used"] else "never used"


def _more(left: int) -> list[Line]:
    return [[(f"and {left} more", DIM)]] if left > 0 else []


def key_state(key: Row, now: float) -> str:
    """The state of a key now: nobody tells when one expires."""
    if key["state"] in ("active", "suspended") and time_left(key["expires"], now) == "over":
        return "expired"
    return str(key["state"])


def whole_user_lines(row: Row, keys: Sequence[Row], limits: Row, running: int, now: float) -> list[Line]:
    """Everything: with the limits in force and what is used of them."""
    lines = user_lines(row, [], running, now)[:-2]
    in_force = limits.get("effective") or limits
    lines += [[], title("LIMITS IN FORCE, AND WHAT OF THEM IS USED NOW")]
    lines += gauges(in_force, limits["use"], now, own=limits)
    lines += [[], title(f"KEYS ({len(keys)})"), *key_lines(keys, now)]
    return lines
