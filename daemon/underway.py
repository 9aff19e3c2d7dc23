"""One exchange under way: what the web face knows of its request, and what it holds until it is settled.

Rule: the relay moves it along; here is what its parts are, what the store is handed of its answer, and how its end is
told to the upstream's circuit and charged.
"""

from __future__ import annotations

from common.errors import GatewayError, UpstreamFailed
from daemon.access.identity import Caller
from daemon.deadlines import Watch
from daemon.dialects.translator import Translator, UpstreamSaid
from daemon.exchange import STATUS_OF_END, EndState, Exchange
from daemon.failover import Attempts
from daemon.following import Following
from daemon.store.partials import Progress
from daemon.traffic.admission import Ticket
from daemon.traffic.seats import Place


class Visit:
    """What the web face knows of one request before the relay takes it on."""

    __slots__ = ("address", "client_label", "exchange", "gone", "received", "request_id", "route", "user_agent")

    def __init__(
        self, *, request_id: str, address: str, route: str, client_label: str, user_agent: str, received: int
    ) -> None:
        self.request_id = request_id
        self.address = address
        self.route = route
        self.client_label = client_label
        self.user_agent = user_agent
        self.received = received
        self.exchange: Exchange | None = None
        self.gone = False

    def label_of(self, caller: Caller) -> str:
        """Which client it is: the key's label, else what the client says."""
        key = caller.key
        return (key.label if key and key.label else self.client_label)[:64]

    def admitted(self, exchange: Exchange) -> None:
        """The relay took the request on; a client that left before is gone from the start."""
        self.exchange = exchange
        if self.gone:
            self.left()

    def left(self) -> None:
        """The client closed its connection."""
        self.gone = True
        if self.exchange is not None:
            self.exchange.end(EndState.CLIENT_LEFT, "the client closed the connection")


class Running:
    """An exchange with what it holds: ticket, place in line, answer so far, deadlines."""

    __slots__ = (
        "answer",
        "asked",
        "attempts",
        "exchange",
        "followers",
        "handed",
        "place",
        "sent",
        "ticket",
        "told",
        "translator",
        "unkept",
        "watch",
    )

    def __init__(
        self, exchange: Exchange, attempts: Attempts, translator: Translator, ticket: Ticket, place: Place
    ) -> None:
        self.exchange = exchange
        self.attempts = attempts
        self.asked = False  # an upstream was asked and not yet told how that went
        self.translator = translator
        self.ticket = ticket
        self.place = place
        self.answer: list[bytes] = []  # what the client was sent and the store was not given yet
        self.unkept = 0  # bytes of it
        self.handed = 0  # bytes before them, which the store has or is being given
        self.followers: list[Following] = []  # administrators who look at it
        self.told: tuple[int, int | None] | None = None  # of its progress, to the store
        self.sent = False
        self.watch: Watch | None = None

    def note(self, failure: UpstreamFailed) -> None:
        """This attempt failed: the upstream's circuit is told."""
        if self.asked:
            self.asked = False
            self.attempts.note(failure)

    def tell_upstream(self) -> None:
        """The exchange ended: the upstream's circuit is told, unless it was already."""
        if not self.asked:
            return
        self.asked = False
        upstream, model, user = self.attempts.route.upstream, self.attempts.route.model, self.exchange.user_id
        match self.exchange.state:
            case EndState.OK:
                upstream.went_well(model, user)
            case EndState.TIMEOUT_FIRST_BYTE | EndState.TIMEOUT_IDLE:
                upstream.went_wrong(model, user)
            case _:
                upstream.told_nothing(model, user)

    def hand_over(self) -> bytes:
        """Take what the store was not given yet, for the store."""
        self.unkept = 0
        if not self.exchange.stream:
            return self.translator.gained()  # the answer itself is recorded whole, in place of what is set down now
        for follower in self.followers:
            follower.collect()
            follower.forgotten()
        data = b"".join(self.answer)
        self.answer.clear()
        self.handed += len(data)
        return data

    def progress(self) -> Progress | None:
        """When it was seated and answered, where that is news since the last call."""
        exchange = self.exchange
        if exchange.seated is None or self.told == (exchange.seated, exchange.first_byte):
            return None
        self.told = (exchange.seated, exchange.first_byte)
        return Progress(exchange.request_id, exchange.seated, exchange.first_byte)

    def was_sent(self) -> None:
        """The upstream connection stands and the request's first byte goes out now."""
        self.sent = True
        if self.watch is not None:
            self.watch.connected()

    def status(self, failure: BaseException | None) -> int:
        if isinstance(failure, UpstreamSaid) and failure.status is not None:
            return failure.status
        if isinstance(failure, GatewayError):
            return failure.status
        assert self.exchange.state is not None
        return STATUS_OF_END.get(self.exchange.state, 502)


def charged_tokens(exchange: Exchange, translator: Translator) -> int:
    """The tokens a settled exchange costs its windows, and its user in money: what the upstream counted.

    Where it was cut off before the upstream's own end, what it told of the answer until then may be next to nothing
    (Anthropic begins with a 1): each piece that came counts as one (Ollama and llama.cpp send a token a piece), unless
    it told of more. The prompt's tokens are those that it told; where it told none, they count nothing.
    """
    usage = exchange.usage
    if exchange.state is not EndState.OK and not (translator.finished and usage.tokens_out is not None):
        usage.tokens_out = max(usage.tokens_out or 0, translator.pieces)
    return (usage.tokens_in or 0) + (usage.tokens_out or 0)
