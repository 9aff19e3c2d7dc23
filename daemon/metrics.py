"""What /metrics tells, in Prometheus' text format.

Rule: counters are bumped once an exchange, at its end, through children resolved before; gauges are read when somebody
asks. No label holds what a stranger chose (user names, models asked for): label values come from our own records.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from daemon.exchange import EndState, Exchange
from daemon.providers.upstream import Upstream

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The daemon's counters."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        ended = Counter(
            "gatelodge_exchanges", "Exchanges that ended, by end state.", ["state"], registry=self._registry
        )
        self._ended = {state: ended.labels(state.value) for state in EndState}
        tokens = Counter(
            "gatelodge_tokens", "Tokens as upstreams counted them.", ["direction"], registry=self._registry
        )
        self._tokens_in, self._tokens_out = tokens.labels("in"), tokens.labels("out")
        self._bytes = Counter("gatelodge_answer_bytes", "Bytes of answers sent to clients.", registry=self._registry)
        self._first_byte = Histogram(
            "gatelodge_first_byte_seconds", "From receipt to the first byte.", registry=self._registry, buckets=_BUCKETS
        )
        self._waited = Histogram(
            "gatelodge_queue_seconds", "Time spent waiting for a seat.", registry=self._registry, buckets=_BUCKETS
        )
        self._unauthenticated = Counter(
            "gatelodge_unauthenticated", "Requests refused with 401.", registry=self._registry
        )
        self._refused = Counter("gatelodge_refused", "Requests refused by limits.", registry=self._registry)
        self._live = Gauge("gatelodge_live", "Exchanges now, by phase.", ["phase"], registry=self._registry)
        self._upstream = Gauge(
            "gatelodge_upstream_healthy", "1 where the upstream answers.", ["upstream"], registry=self._registry
        )

    def exchange_ended(self, exchange: Exchange) -> None:
        """Count one ended exchange."""
        assert exchange.state is not None
        self._ended[exchange.state].inc()
        if exchange.usage.tokens_in:
            self._tokens_in.inc(exchange.usage.tokens_in)
        if exchange.usage.tokens_out:
            self._tokens_out.inc(exchange.usage.tokens_out)
        self._bytes.inc(exchange.bytes_out)
        if exchange.seated is not None:
            self._waited.observe(max(0, exchange.seated - exchange.admitted) / 1e6)
        if exchange.first_byte is not None:
            self._first_byte.observe(max(0, exchange.first_byte - exchange.received) / 1e6)

    def unauthenticated(self) -> None:
        """Count one 401."""
        self._unauthenticated.inc()

    def refused(self) -> None:
        """Count one 429 or queue refusal."""
        self._refused.inc()

    def render(self, live: Sequence[Exchange], upstreams: Sequence[Upstream]) -> tuple[str, bytes]:
        """(Content-Type, page)."""
        phases = {"queued": 0, "prefill": 0, "run": 0, "ended": 0}
        for exchange in live:
            phases[exchange.phase] += 1
        del phases["ended"]
        for phase, count in phases.items():
            self._live.labels(phase).set(count)
        for upstream in upstreams:
            self._upstream.labels(upstream.name).set(1 if upstream.healthy else 0)
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)
