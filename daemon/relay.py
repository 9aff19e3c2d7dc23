"""The way of one exchange: policy -> admit -> record -> seat -> open upstream -> relay -> settle.

    policy   which upstream serves this model, and may this caller use it?
    admit    every limit and the queue's bounds, decided in one synchronous step; a refusal costs nothing
    record   the request is durable in the journal before a byte goes upstream
    seat     wait for a place at the upstream
    open     the upstream's answer begins
    relay    pieces go to the client as they arrive, at the client's pace
    settle   seat freed, limits charged, end recorded; only then does the end of the answer leave

An upstream that fails before the answer's first byte gives way to another one (`failover.py`): one exchange, one end.

Rules: an admitted exchange ends in exactly one state, and the first reason wins (`Exchange.end`). Whoever wants an
exchange to end (client, administrator, deadline, shutdown) calls `end`, which cancels its task; the `async with`
blocks unwind and `_settle` is the one clean-up. Nothing here knows HTTP's server side or a dialect's shapes.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from common.errors import GatewayError, Unauthenticated, Unavailable, UpstreamFailed
from daemon.access.identity import Caller, not_for_this_key
from daemon.audit.journal import Journal
from daemon.clock import Clock
from daemon.config import Deadlines
from daemon.deadlines import Watch
from daemon.dialects import unknown
from daemon.dialects.asks import Ask
from daemon.dialects.translator import Translator, UpstreamSaid, detail_of, own_detail
from daemon.exchange import FREE_OF_CHARGE, EndState, Exchange
from daemon.failover import Attempts, retry_after
from daemon.following import Following
from daemon.providers.connection import Response
from daemon.providers.errors import ConnectTimedOut, Resting
from daemon.providers.prices import Prices
from daemon.providers.registry import Registry, Route
from daemon.traffic.admission import Admission, Subject
from daemon.traffic.seats import QueueTimeout
from daemon.underway import Running, Visit, charged_tokens

log = logging.getLogger("gatelodge.exchange")

STALLED_CLIENT = 30.0  # seconds a client may leave a full socket unread
RESTART = 5  # seconds after which a client that a stopping daemon refused may find the next one
PARTIAL_EVERY = 1.0  # seconds between two looks at the running answers
PARTIAL_BYTES = 64 * 1024  # a running answer that grew by this much is set down at once


class Client(Protocol):
    """The client's end, as the relay sees it (`daemon/web/stream.py`)."""

    started: bool

    def begin(self, content_type: str, headers: dict[str, str]) -> None: ...
    def send(self, data: bytes) -> Awaitable[None] | None: ...
    async def finish(self, data: bytes) -> None: ...


class ExchangeFailed(GatewayError):
    """An admitted exchange that did not end well; its end is recorded already."""

    def __init__(
        self, exchange: Exchange, status: int, retry_after: int | None, detail: dict[str, Any] | None = None
    ) -> None:
        assert exchange.state is not None
        code = exchange.state.value
        super().__init__(exchange.error, status=status, code=code, retry_after=retry_after, detail=detail)
        self.exchange = exchange


class Gate:
    """Runs exchanges and knows the live ones."""

    def __init__(
        self,
        *,
        clock: Clock,
        deadlines: Deadlines,
        journal: Journal,
        admission: Admission,
        registry: Registry,
        still_counts: Callable[[Caller], bool],
        prices: Prices,
    ) -> None:
        """`still_counts` tells whether a caller identified a moment ago would still be (`Access.still_counts`)."""
        self._clock = clock
        self.deadlines = deadlines  # of exchanges that begin from now on
        self._journal = journal
        self._admission = admission
        self._registry = registry
        self._still_counts = still_counts
        self.prices = prices
        self._live: dict[str, Exchange] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._grown = asyncio.Event()  # some answer grew by PARTIAL_BYTES
        self._running: dict[str, Running] = {}
        self.changed: Callable[[Exchange], None] = lambda _: None  # told of each step of an exchange; must not wait
        self.turned_away: Callable[[Caller, Visit, str, str], None] = lambda *_: None  # caller, visit, model, reason
        self.admissible: Callable[[], None] = lambda: None  # raises where nothing may be admitted now (disk, stop)

    # --- what administrators and the shutdown do with live exchanges ---

    def live(self) -> list[Exchange]:
        """The exchanges that are admitted and have not ended, oldest first."""
        return list(self._live.values())

    def find(self, request_id: str) -> Exchange | None:
        """The live exchange of that id."""
        return self._live.get(request_id)

    def cancel(self, request_id: str, error: str = "cancelled by an administrator") -> bool:
        """End a live exchange for an administrator; whether there was one to end."""
        exchange = self._live.get(request_id)
        return exchange is not None and exchange.end(EndState.CANCELLED_BY_ADMIN, error)

    def cut(self, applies: Callable[[Exchange], bool], state: EndState, error: str) -> int:
        """End every live exchange that `applies` to; how many."""
        return sum(1 for exchange in self.live() if applies(exchange) and exchange.end(state, error))

    def pieces(self, request_id: str) -> int:
        """How many pieces of the live exchange's answer came so far, each about a token."""
        running = self._running.get(request_id)
        return 0 if running is None else running.translator.pieces

    def silent_for(self, request_id: str) -> float | None:
        """Seconds since the upstream's last piece; None before the first."""
        running = self._running.get(request_id)
        return None if running is None or running.watch is None else running.watch.silent_for

    def follow(self, request_id: str) -> Following | None:
        """A view of a live exchange's answer as it comes, to be closed; None where it is not live."""
        running = self._running.get(request_id)
        return None if running is None else Following(running)

    async def idle(self) -> None:
        """Wait until no exchange is live."""
        await self._idle.wait()

    # --- the way of one exchange ---

    async def serve(self, caller: Caller, ask: Ask, client: Client, visit: Visit) -> None:
        """Carry `ask` through; returns when the end of the answer has left.

        GatewayError before admission; ExchangeFailed after it, when the failure is recorded and the client must be
        told (by status, or in the stream where `client.started`).
        """
        routes = await self._registry.routes(ask.model, cloud=caller.user.cloud)
        routes = self._permitted(caller, ask, routes, visit)
        translator = routes[0].upstream.translator(ask)
        async with self._admitted(caller, ask, routes, translator, visit) as running:
            while True:
                try:
                    async with running.place:
                        self._seated(running.exchange)
                        async with self._opened(running, running.attempts.route) as response:
                            client.begin(running.translator.content_type, self._headers(ask, running))
                            end = await self._relay(running, response, client)
                    break
                except UpstreamFailed as failure:
                    await self._go_on_after(failure, running)
        await client.finish(end)

    def _permitted(self, caller: Caller, ask: Ask, routes: list[Route], visit: Visit) -> list[Route]:
        """The routes that the caller may take now; a key's pattern may fit what was asked or what it means."""
        permitted = [
            route
            for route in routes
            if caller.may_use(ask.model, route.model) and (caller.user.cloud or not route.leaves_lan)
        ]
        if not permitted:
            self._refused(caller, routes[0].model, visit, "model_not_allowed")
            raise not_for_this_key(caller, ask.model)
        user = caller.user.id
        if not permitted[0].upstream.rests(permitted[0].model, user):
            return permitted
        # Those that rest for everybody are the last ones; some may rest for this caller alone.
        awake = [route for route in permitted if not route.upstream.rests(route.model, user)]
        if not awake:
            self._refused(caller, permitted[0].model, visit, Resting.code)
            raise _resting(permitted[0], user)
        return awake

    async def _go_on_after(self, failure: UpstreamFailed, running: Running) -> None:
        """Make ready to ask once more, another upstream or a moment later; raises `failure` where that is its end."""
        exchange, attempts = running.exchange, running.attempts
        running.note(failure)
        if exchange.state is not None or exchange.bytes_out or running.translator.pieces:
            raise failure
        tried = attempts.tried(failure)
        following = attempts.next(failure, self._admission, running.ticket)
        if following is None:
            raise failure
        log.warning("request %s goes on at %s: %s", exchange.request_id, following.route, failure)
        exchange.tried = [*(exchange.tried or ()), tried]
        exchange.seated = exchange.first_byte = None
        exchange.upstream, exchange.model = following.route.upstream.name, following.route.model
        running.translator = following.translator
        if following.wait:
            self.changed(exchange)
            await asyncio.sleep(following.wait)
            try:
                self._admission.check_room(running.ticket, following.route.upstream.seats)
            except GatewayError:
                raise failure from None  # its room was taken meanwhile
        running.place = following.route.upstream.seats.enter(running.ticket, exchange.request_id)
        exchange.position = running.place.position
        exchange.estimated_wait = running.place.estimated_wait
        self.changed(exchange)

    def foresee(self, caller: Caller, visit: Visit) -> None:
        """Before a large body is read, refuse what would be refused whatever stands in it: a refusal costs nothing, and
        reading is what it would cost."""
        self.admissible()
        subject = _subject(caller, "", visit)
        try:
            self._admission.foresee(subject)
        except GatewayError as refusal:
            self._refused(caller, "", visit, str(refusal.detail.get("limit") or refusal.code))
            raise

    def _refused(self, caller: Caller, model: str, visit: Visit, reason: str) -> None:
        self._journal.refused(
            user_id=caller.user.id,
            user=caller.user.email,
            key_id=caller.key.id if caller.key else None,
            client_label=visit.label_of(caller),
            address=visit.address,
            model=model,
            reason=reason,
        )
        self.turned_away(caller, visit, model, reason)

    @asynccontextmanager
    async def _admitted(
        self, caller: Caller, ask: Ask, routes: list[Route], translator: Translator, visit: Visit
    ) -> AsyncIterator[Running]:
        """Admit and record; on the way out settle, whatever happened inside."""
        self.admissible()
        running = self._admit(caller, ask, routes, translator, visit)
        exchange = running.exchange
        failure: BaseException | None = None
        try:
            await self._journal.opened(exchange)
            yield running
        except BaseException as error:
            failure = error
            _explain(exchange, error)
        if exchange.state is None:
            exchange.state = EndState.OK
        # A failure to record is raised here: who has seen the end is in the audit, so nobody may see this one.
        try:
            cancelled = await _undisturbed(self._settle(running))
        finally:
            self._settled(running)
        failure = failure or cancelled
        task = asyncio.current_task()
        if isinstance(failure, asyncio.CancelledError):
            if task is None or not exchange.error:
                raise failure  # from elsewhere, not by `end`, which always says why
            task.uncancel()
        if exchange.state is not EndState.OK:
            status, pause = running.status(failure), _retry_after(exchange, failure)
            detail = own_detail(failure, ask.shape.family, running.attempts.route.upstream.kind)
            raise ExchangeFailed(exchange, status, pause, detail) from failure

    def _admit(self, caller: Caller, ask: Ask, routes: list[Route], translator: Translator, visit: Visit) -> Running:
        """The synchronous step: all limits and the queue's bounds, or a refusal that costs nothing."""
        route = routes[0]
        if not self._still_counts(caller):
            # Disabled or revoked between identification and here: the cut of their exchanges did not see this one.
            raise Unauthenticated("the credential was revoked a moment ago", code="credential_revoked")
        key = caller.key
        subject = _subject(caller, route.model, visit)
        seats = route.upstream.seats
        try:
            ticket = self._admission.admit(subject, seats)
        except GatewayError as refusal:
            self._refused(caller, route.model, visit, str(refusal.detail.get("limit") or refusal.code))
            raise
        exchange = Exchange(
            request_id=visit.request_id,
            user_id=caller.user.id,
            user=caller.user.email,
            key_id=key.id if key else None,
            session=caller.session,
            client_label=visit.label_of(caller),
            address=visit.address,
            user_agent=visit.user_agent,
            route=visit.route,
            model_asked=ask.model,
            model=route.model,
            upstream=route.upstream.name,
            stream=ask.stream,
            document=ask.document,
            received=visit.received,
            admitted=self._clock.wall(),
            admitted_clock=ticket.admitted_clock,
            task=asyncio.current_task(),
        )
        attempts = Attempts(ask, routes, caller.user.id)
        running = Running(exchange, attempts, translator, ticket, seats.enter(ticket, exchange.request_id))
        exchange.position = running.place.position
        exchange.estimated_wait = running.place.estimated_wait
        self._live[exchange.request_id] = exchange
        self._idle.clear()
        self._running[exchange.request_id] = running
        visit.admitted(exchange)
        self.changed(exchange)
        return running

    def _headers(self, ask: Ask, running: Running) -> dict[str, str]:
        """What is known of an answer before its first byte."""
        headers = self._admission.rate_limit_headers(running.ticket)
        translated = ask.shape.family != running.attempts.route.upstream.kind
        if translated and (ignored := unknown.told(ask, running.translator.left_out)):
            headers["X-Gatelodge-Ignored"] = ignored
        return headers

    def _seated(self, exchange: Exchange) -> None:
        exchange.seated = self._clock.wall()
        self.changed(exchange)

    @asynccontextmanager
    async def _opened(self, running: Running, route: Route) -> AsyncIterator[Response]:
        """The upstream's answer to the request, under every deadline; an error answer is raised as UpstreamSaid."""
        exchange, translator = running.exchange, running.translator
        if not route.upstream.may_ask(route.model, exchange.user_id):
            raise _resting(route, exchange.user_id)
        running.asked = True
        discretion = route.upstream.discretion  # of the key that is shown now
        body = translator.body(route.model)
        watch = running.watch = Watch(exchange, self.deadlines)
        try:
            async with route.upstream.request(
                translator.upstream_method,
                translator.upstream_path,
                headers=translator.upstream_headers,
                body=body,
                on_sent=running.was_sent,
            ) as response:
                if response.status != 200:
                    answer = await response.read(64 * 1024)
                    status, message = translator.error_status(response.status, answer)
                    said = UpstreamSaid(message, status=status, retry_after=retry_after(response.headers))
                    said.detail = detail_of(answer, response.status)
                    said.upstream_status = response.status
                    raise said
                yield response
        except UpstreamFailed as failure:
            discretion.keep(failure)
            raise
        finally:
            watch.stop()

    async def _relay(self, running: Running, response: Response, client: Client) -> bytes:
        """Pieces to the client as they arrive, until the upstream's end; returns the end, which is to leave last."""
        exchange, translator, watch = running.exchange, running.translator, running.watch
        assert watch is not None
        async for data in response:
            if exchange.first_byte is None:
                exchange.first_byte = self._clock.wall()
                self.changed(exchange)
            watch.touch()
            piece = translator.feed(data)
            if piece:
                exchange.bytes_out += len(piece)
                exchange.chunks_out += 1
                running.answer.append(piece)
                self._grew(running, len(piece))
                slow = client.send(piece)
                if slow is not None:
                    await self._wait_for_client(exchange, slow)
                    watch.touch()
            elif not exchange.stream:
                self._grew(running, len(data))  # gathered for a client that gets it whole
            if translator.finished and "content-length" not in response.headers:
                response.release()
                break  # with a length announced, that must come true as well: read on
        # Raises where the upstream's end never came: a missing end is a failure, not an end.
        end = translator.terminator()
        running.answer.append(end)
        exchange.bytes_out += len(end)
        exchange.usage = translator.usage
        return end

    def _grew(self, running: Running, size: int) -> None:
        """An answer has `size` bytes more to be set down; a fast one is not waited for."""
        running.unkept += size
        if running.unkept >= PARTIAL_BYTES:
            self._grown.set()

    async def _wait_for_client(self, exchange: Exchange, slow: Awaitable[None]) -> None:
        try:
            # Not `wait_for`, which may swallow a cancellation that comes with the result. Shielded: Tornado logs a
            # write that is cancelled as a failure of its own.
            async with asyncio.timeout(STALLED_CLIENT):
                await asyncio.shield(slow)
        except TimeoutError:
            exchange.end(EndState.CLIENT_LEFT, f"the client read nothing for {STALLED_CLIENT:.0f} seconds")
        except OSError:
            exchange.end(EndState.CLIENT_LEFT, "the client closed the connection")
        await asyncio.sleep(0)  # where `end` was called, the cancellation arrives here

    def _settle(self, running: Running) -> asyncio.Future[None]:
        """The one clean-up, in one step: seat free, limits charged, the end on its way to the journal."""
        exchange = running.exchange
        running.place.leave()
        exchange.ended = self._clock.wall()
        if exchange.state is not EndState.OK:
            # Generated, charged and on record, though an unstreamed client never got it.
            gathered = running.translator.so_far()
            if gathered:
                running.answer.append(gathered)
            exchange.usage = running.translator.usage
        exchange.sent_upstream = running.sent
        running.tell_upstream()
        if running.sent:
            self._admission.spend_tokens(running.ticket, charged_tokens(exchange, running.translator))
            self._price(exchange, running.attempts.route)
        else:
            self._admission.give_back(running.ticket)
        return self._journal.closed(exchange, running.answer)

    def _price(self, exchange: Exchange, route: Route) -> None:
        """What it cost in money, where that is known."""
        price = self.prices.price_of(route.upstream.name, route.upstream.url, route.model)
        if price is not None:
            usage = exchange.usage
            free = exchange.state in FREE_OF_CHARGE
            exchange.cost = 0 if free else price.cost(usage.tokens_in, usage.tokens_out)
            exchange.currency = self.prices.currency

    def _settled(self, running: Running) -> None:
        """Its end is in the journal (or could not be recorded): it is gone, and watchers are told."""
        exchange = running.exchange
        self._live.pop(exchange.request_id, None)
        self._running.pop(exchange.request_id, None)
        if not self._live:
            self._idle.set()
        self._admission.settled(running.ticket)
        self.changed(exchange)

    async def keep_partials(self) -> None:
        """Set down the running answers every second, until cancelled: a crash loses at most the last one."""
        while True:
            try:
                async with asyncio.timeout(PARTIAL_EVERY):
                    await self._grown.wait()
            except TimeoutError:
                pass  # nothing grew fast; look anyway
            self._grown.clear()
            await self.flush_partials()

    async def flush_partials(self) -> None:
        """Move what the running answers gained since the last time into the store's `partial` table."""
        running = [each for each in self._running.values() if each.exchange.state is None]
        segments = [(each.exchange.request_id, data) for each in running if (data := each.hand_over())]
        progress = [told for each in running if (told := each.progress())]
        if segments or progress:
            try:
                await self._journal.flush_partials(segments, progress)
            except GatewayError as error:
                log.warning("running answers could not be set down: %s", error)


def _subject(caller: Caller, model: str, visit: Visit) -> Subject:
    return Subject(
        user_id=caller.user.id,
        email=caller.user.email,
        key_id=caller.key.id if caller.key else None,
        model=model,
        address=visit.address,
    )


def _resting(route: Route, user: int) -> Resting:
    seconds = route.upstream.rests(route.model, user)
    return Resting(
        f"the upstream {route.upstream.name} failed with {route.model} lately and is left alone for a moment",
        retry_after=max(1, math.ceil(seconds)),
    )


async def _undisturbed(work: asyncio.Future[None]) -> asyncio.CancelledError | None:
    """Await `work` to its end even where the task is cancelled meanwhile; that cancellation is returned."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as error:
            cancelled = error
        except GatewayError:
            break  # raised by result() below
    work.result()
    return cancelled


def _explain(exchange: Exchange, error: BaseException) -> None:
    """Name the end that `error` is, unless a reason is named already."""
    if exchange.state is not None:
        return
    words = str(error) or type(error).__name__
    match error:
        case ConnectTimedOut():
            exchange.state = EndState.TIMEOUT_CONNECT
        case QueueTimeout():
            exchange.state = EndState.QUEUE_TIMEOUT
        case Unavailable():
            exchange.state = EndState.REFUSED  # it could not be recorded: it was never opened
        case asyncio.CancelledError():
            exchange.state, words = EndState.SHUTDOWN, ""
        case _:
            if not isinstance(error, GatewayError):
                log.error("request %s failed", exchange.request_id, exc_info=error)
                words = "the gateway failed on this request; its log tells more under this request id"
            exchange.state = EndState.UPSTREAM_ERROR
    exchange.error = words


def _retry_after(exchange: Exchange, failure: BaseException | None) -> int | None:
    if exchange.state is EndState.SHUTDOWN:
        return RESTART
    seconds: Any = getattr(failure, "retry_after", None)
    return math.ceil(seconds) if seconds is not None else None
