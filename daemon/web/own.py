"""What users see of their own: what waits and runs, how much of which limit is used, what they used before.

Rule: nothing here is about anybody else, except how full a limit is that the caller shares with others (a model's, an
address's), which its refusals tell, too. None of it spends a limit.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from common.errors import BadRequest
from common.protocol import UsageBucket, UsageRequest, UsageRow
from common.times import iso, moment_of
from daemon.access.identity import not_for_this_key
from daemon.traffic.refusals import FIELDS, seconds_rounded_up
from daemon.traffic.rules import in_words
from daemon.traffic.tallies import Subject
from daemon.usage import usage
from daemon.web.base import Handler
from daemon.web.described import described

Q = TypeVar("Q", bound=msgspec.Struct)
Moment = Annotated[
    str | None,
    Meta(
        description="A duration before now (1h, 24h, 7d, 30d) or a moment (ISO 8601; UTC without a zone).",
        examples=["7d"],
    ),
]


class OwnHandler(Handler):
    """A route about the caller's own; answers that no cache keeps."""

    group = "One's own"

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

    def read_query(self, kind: type[Q]) -> Q:
        """The query's parameters as `kind`; BadRequest where one is unknown, given twice or cannot be."""
        given: dict[str, Any] = {}
        for name in self.request.query_arguments:
            values = self.get_query_arguments(name)
            if name not in kind.__struct_fields__:
                known = ", ".join(kind.__struct_fields__)
                raise BadRequest(f"there is no parameter {name[:100]!r} here; there are: {known}")
            if len(values) > 1:
                raise BadRequest(f"the parameter {name!r} is given twice")
            given[name] = values[0]
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            raise BadRequest(f"the parameters are wrong: {error}") from error


class Waiting(msgspec.Struct, kw_only=True):
    """An exchange that waits or runs."""

    request_id: str
    model: str
    state: str
    position: Annotated[int | None, Meta(description="In the line, from 1; null where it does not wait.")]
    estimated_wait_seconds: float | None


class OwnQueue(OwnHandler):
    """GET /v1/queue: the caller's own exchanges, with their place in line."""

    @described("What of yours waits and runs, with its place in line", answers=list[Waiting])
    async def get(self) -> None:
        caller = self.caller()
        rows = [
            Waiting(
                request_id=exchange.request_id,
                model=exchange.model,
                state=exchange.phase,
                position=exchange.position(),
                estimated_wait_seconds=exchange.estimated_wait(),
            )
            for exchange in self.house.gate.live()
            if exchange.user_id == caller.user.id
        ]
        self.answer(200, rows)


class LimitsQuery(msgspec.Struct, kw_only=True):
    """GET /v1/limits"""

    model: Annotated[str | None, Meta(description="Also the limits that everybody who uses it shares.")] = None


class OwnLimit(msgspec.Struct, kw_only=True):
    """One limit that your requests are under."""

    limit: Annotated[str, Meta(description="requests_per_minute, tokens_per_day, concurrency …")]
    scope: Annotated[str, Meta(description="Whose it is, in words: yours, this key's, a model's, an address's.")]
    max: int
    used: int
    remaining: int
    window_seconds: Annotated[int | None, Meta(description="The window slides; null of concurrency.")]
    frees_at: Annotated[str | None, Meta(description="When some of it comes back; null: nothing is used.")]
    reset_seconds: Annotated[int | None, Meta(description="The same in whole seconds from now, rounded up.")]


class OwnLimits(OwnHandler):
    """GET /v1/limits: every limit that the caller's next request would be under."""

    @described(
        "Your limits: what is used, what remains, when some of it comes back",
        description="An empty list: nothing is limited. The windows slide, so what was used comes back bit by bit.",
        query=LimitsQuery,
        answers=list[OwnLimit],
        errors=(403, 404),
    )
    async def get(self) -> None:
        caller = self.caller()
        asked = self.read_query(LimitsQuery)
        model = ""
        if asked.model:
            route = await self.house.registry.resolve(asked.model, cloud=caller.user.cloud)
            if not caller.may_use(asked.model, route.model):
                raise not_for_this_key(caller, asked.model)
            model = route.model
        clock = self.house.clock
        now, wall = clock.now(), clock.wall()
        subject = Subject(
            user_id=caller.user.id,
            email=caller.user.email,
            key_id=caller.key.id if caller.key else None,
            model=model,
            address=self.client_address,
        )
        rows = []
        for use in self.house.admission.in_use_by(subject):
            period = FIELDS[use.limit].period
            frees_in = use.frees_at - now if use.frees_at is not None and use.used else None
            rows.append(
                OwnLimit(
                    limit=use.limit,
                    scope=in_words(use.target),
                    max=use.max,
                    used=use.used,
                    remaining=max(0, use.max - use.used),
                    window_seconds=seconds_rounded_up(period) if period else None,
                    frees_at=None if frees_in is None else iso(wall + frees_in),
                    reset_seconds=None if frees_in is None else seconds_rounded_up(frees_in),
                )
            )
        self.answer(200, rows)


class UsageQuery(msgspec.Struct, kw_only=True):
    """GET /v1/usage"""

    since: Moment = None
    until: Moment = None
    by: Annotated[
        Literal["model", "key", "client"], Meta(description="What the rows are: models, keys or client labels.")
    ] = "model"
    top: Annotated[int, Meta(ge=1, le=1000, description="So many rows; the rest is added up in `others`.")] = 20


class OwnUsageAnswer(msgspec.Struct, kw_only=True):
    """What you used, by name and over time. An exchange counts where it was received, with what it cost in the end."""

    since: str
    until: str
    by: Literal["model", "key", "client"]
    total: UsageRow
    rows: Annotated[list[UsageRow], Meta(description="Those with the most tokens out first.")]
    others: Annotated[UsageRow | None, Meta(description="null: `rows` are all.")]
    bucket_seconds: Annotated[int, Meta(description="The width of a point of `series`.")]
    series: list[UsageBucket]


class OwnUsage(OwnHandler):
    """GET /v1/usage: what the caller's user used."""

    @described(
        "What you used: requests and tokens, by model or key, and over time",
        description="The last 24 hours where nothing else is asked for; at most ten years.",
        query=UsageQuery,
        answers=OwnUsageAnswer,
    )
    async def get(self) -> None:
        caller = self.caller()
        asked = self.read_query(UsageQuery)
        now = self.house.clock.wall()
        question = UsageRequest(
            since=_moment("since", asked.since, now),
            until=_moment("until", asked.until, now),
            by=asked.by,
            top=asked.top,
            user=caller.user.email,
        )
        # One after the other: users who ask for years must not keep the store's readers from everybody else.
        async with self.house.own_usage:
            used = await usage(self.house.database, question, now_us=now)
        self.answer(
            200,
            OwnUsageAnswer(
                since=used.since,
                until=used.until,
                by=asked.by,
                total=used.total,
                rows=used.rows,
                others=used.others,
                bucket_seconds=used.bucket_seconds,
                series=used.series,
            ),
        )


def _moment(name: str, text: str | None, now: int) -> str | None:
    if text is None:
        return None
    try:
        # In an address a + is a space, also in the zone of a moment.
        return iso(moment_of(text.replace(" ", "+"), now=now))
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{name}: {error}") from error


ROUTES: tuple[tuple[str, type[Handler]], ...] = (
    (r"/v1/queue", OwnQueue),
    (r"/v1/limits", OwnLimits),
    (r"/v1/usage", OwnUsage),
)
