"""What crosses the admin socket: every verb with its question and its answer, and the messages of the watch stream.

HTTP/1.1 over the Unix socket. A verb is `POST /users/approve` with a JSON object (an empty body is `{}`); its answer is
    one     a JSON document
    many    NDJSON: items of the answer's type as they come, then an `End`, which has a `failure` if it ended badly
    raw     bytes (an export); a connection that closes before its last chunk means that they are not whole
An error before the answer begins is its HTTP status and a `Failure`. `GET /watch` is NDJSON of `WatchMessage`s,
`GET /metrics` Prometheus text.

Rule: field names are a promise: `gatelodge --json` prints these structs. Times are ISO 8601 UTC (`common/times.py`);
`request_id` is the request's name everywhere. None means unknown or not there. Fields may be added; a change that an
older program would misread raises PROTOCOL_VERSION, and daemon and program refuse each other with a clear word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

PROTOCOL_VERSION = 1
VERSION_HEADER = "X-Gatelodge-Protocol"
EXPORT_HEADER = "X-Gatelodge-Export"  # the id to report an export's SHA-256 under

Unlimited = Literal["unlimited"]
LIMIT_FIELDS = (
    "requests_per_minute",
    "requests_per_hour",
    "requests_per_day",
    "tokens_per_minute",
    "tokens_per_day",
    "concurrency",
)


class Message(msgspec.Struct):
    """Anything that crosses the socket."""


class Request(Message, forbid_unknown_fields=True):
    """A question. A misspelt field is an error, never ignored."""


class Failure(Message):
    """Why a verb was refused or failed; `code` is a stable word, `error` a sentence for people."""

    error: str
    code: str
    detail: dict[str, Any] = {}


class End(Message):
    """The last line of an answer of many items: whether they came whole. Without this line they did not."""

    end: Literal[True] = True
    failure: Failure | None = None


# -- the daemon -------------------------------------------------------------------------------------------------------


class Nothing(Request):
    """A question without a parameter."""


class UserCounts(Message):
    """How many users are in which state."""

    active: int
    disabled: int
    pending: int


class DiskState(Message):
    """The data folder's disk, in bytes; below `min_free` no request is admitted."""

    free: int
    total: int
    min_free: int
    database: int
    growth_per_day: int | None = None  # by what happened in the last days; None: not watched for long enough yet
    days_left: float | None = None  # until `min_free` is met at that growth; None: not known, or it does not grow


class Status(Message):
    """`status`: the daemon at a glance."""

    version: str
    protocol_version: int
    boot_id: str  # of this start of the daemon
    pid: int
    started: str
    uptime_seconds: int
    data: str
    addresses: list[str]  # http://127.0.0.1:7000
    users: UserCounts
    running: int
    queued: int
    upstreams: list[UpstreamRow]
    default_model: str | None
    disk: DiskState
    stopping: bool
    reloaded: Reloaded | None = None  # None: never since the start


class Reloaded(Message):
    """`status`: what came of the last SIGHUP."""

    at: str
    problem: str  # why the configuration was not taken up; empty where it was
    waiting_for_restart: list[str]  # keys that are set otherwise than they run


class Finding(Message):
    """`doctor`: one thing that was looked at. `ok` needs nothing, `note` is worth knowing, the others need work."""

    subject: str  # "ollama", "disk", "clock" ...
    severity: Literal["ok", "note", "warning", "error"]
    message: str  # what is (wrong)
    advice: str = ""  # what to do


class SelftestRequest(Request):
    """`selftest [--model NAME]`."""

    model: str | None = None


class SelftestStep(Message):
    """One step of the self-test, when it has been taken."""

    step: str
    ok: bool
    seconds: float
    message: str


# -- users ------------------------------------------------------------------------------------------------------------

KeyState = Literal["active", "suspended", "expired", "revoked"]  # suspended: its user is disabled
Role = Literal["user", "admin"]
UserStatus = Literal["pending", "active", "disabled"]


class UsersList(Request):
    """`users list [--status …]`."""

    status: UserStatus | None = None


class UserRow(Message):
    """A user, or an entry that waits for approval (then `id` is None and `code` tells several entries apart)."""

    id: int | None
    email: str
    status: UserStatus
    role: Role
    service: bool
    code: str | None
    address: str | None  # where a pending entry came from
    created: str
    approved: str | None
    must_change_password: bool
    keys: int  # that are neither revoked nor expired
    notes: str
    version: int
    inline_auth: bool = True  # a password in the body of POST /chat counts
    cloud: bool = False  # may use what is outside of the LAN


class UserTarget(Request):
    """One user, by e-mail address; with `version` only if nobody changed the user since."""

    user: str
    version: int | None = None


class UserDetail(Message):
    """`users show`: the user with keys and limits."""

    user: UserRow
    keys: list[KeyRow]
    limits: LimitRow


class UsersAdd(Request):
    """`users add EMAIL [--role admin] [--service]`."""

    email: str
    role: Role = "user"
    service: bool = False


class UserAdded(Message):
    """The new user; the one-time password (none for a service account) is only good for setting a new one."""

    id: int
    email: str
    role: Role
    service: bool
    one_time_password: str | None
    one_time_expires: str | None


class UsersApprove(Request):
    """`users approve EMAIL|CODE`."""

    who: str


class UsersDiscard(Request):
    """`users discard CODE`: one pending registration is refused."""

    code: str


class UserDiscarded(Message):
    """Which entry was refused; its address may register again."""

    code: str
    email: str
    discarded: bool


class OneTimePassword(Message):
    """`users reset-password`: shown this once."""

    id: int
    email: str
    one_time_password: str
    one_time_expires: str | None


class UsersRole(Request):
    """`users role EMAIL user|admin`."""

    user: str
    role: Role
    version: int | None = None


class UsersNotes(Request):
    """`users notes EMAIL TEXT`."""

    user: str
    notes: str
    version: int | None = None


class UsersInlineAuth(Request):
    """`users inline-auth EMAIL on|off`: whether a password in the body of `POST /chat` counts."""

    user: str
    allowed: bool
    version: int | None = None


class UsersCloud(Request):
    """`users cloud EMAIL on|off`."""

    user: str
    allowed: bool
    version: int | None = None


class UserDeleted(Message):
    """`users delete`: what is left is a tombstone under this id."""

    id: int
    email: str
    deleted: bool


# -- keys -------------------------------------------------------------------------------------------------------------


class KeysIssue(Request):
    """`keys issue EMAIL --label L [--expires 90d] [--model PATTERN]… [--address CIDR]… [--metrics] [--in-path]`."""

    user: str
    label: str
    expires_seconds: int | None = None
    models: list[str] = []
    addresses: list[str] = []
    metrics: bool = False
    in_path: bool = False  # it may stand in the path, /k/KEY/…


class IssuedKey(Message):
    """A new key, shown this once."""

    id: str
    key: str


class KeysList(Request):
    """`keys list [--user EMAIL] [--all]`: without `all` only those that are neither revoked nor expired."""

    user: str | None = None
    all: bool = False


class KeyRow(Message):
    """An API key, without its secret."""

    id: str
    user: str
    label: str
    state: KeyState
    purpose: Literal["inference", "metrics"]
    models: list[str]
    addresses: list[str]
    created: str
    expires: str | None
    revoked: str | None
    previous_until: str | None  # until then the secret before the last rotation works, too
    last_used: str | None
    last_address: str | None
    version: int
    in_path: bool = False  # it may stand in the path, /k/KEY/…
    imported: bool = False  # its first secret was made elsewhere (`import`)


class KeysRotate(Request):
    """`keys rotate ID --grace 1h`."""

    id: str
    grace_seconds: int = 0
    version: int | None = None  # only if nobody changed the key since


class RotatedKey(Message):
    """The key's new secret, shown this once; the old one works until `previous_until`."""

    id: str
    key: str
    previous_until: str | None


class KeyTarget(Request):
    """One key, by id; with `version` only if nobody changed the key since."""

    id: str
    version: int | None = None


class FoundToken(Message, forbid_unknown_fields=True):
    """One credential of another gateway: whose it is, by a name or an e-mail address, and what it says."""

    name: str
    token: str

    def __repr__(self) -> str:
        return f"FoundToken(name={self.name!r})"


class KeysImport(Request):
    """`import FILE`: tokens that another gateway issued become keys, all of them or none.

    `domain` makes an e-mail address of a name that is none. `source` names the file, for the labels and the audit.
    """

    tokens: list[FoundToken]
    source: str
    domain: str = "localhost"


class ImportedKey(Message):
    """What became of one of them. `known`: an earlier import brought it; `ended`: and it is revoked or replaced since.

    `weak` says why it is easily guessed; empty where it does not look so.
    """

    name: str
    user: str
    id: str
    state: Literal["imported", "known", "ended"]
    new_user: bool
    weak: str


# -- limits -----------------------------------------------------------------------------------------------------------


class LimitsShow(Request):
    """`limits show [TARGET]`: without a target, every target that has a limit of its own, `default` first."""

    target: str | None = None


class LimitValues(Message):
    """The six limits of one target: a number, "unlimited", or None where the target has none of its own."""

    requests_per_minute: int | Unlimited | None = None
    requests_per_hour: int | Unlimited | None = None
    requests_per_day: int | Unlimited | None = None
    tokens_per_minute: int | Unlimited | None = None
    tokens_per_day: int | Unlimited | None = None
    concurrency: int | Unlimited | None = None


class LimitUse(Message):
    """One limit of one target, and how much of it is used now."""

    target: str  # whose: of the limits of `default`, the user
    limit: str  # one of LIMIT_FIELDS
    used: int
    max: int
    frees_at: str | None  # when some of what is used comes back; None: nothing is used, or (concurrency) nobody knows


class LimitRow(LimitValues, kw_only=True):
    """A target's own limits, for a user those in force (its own, else the default's), and what of them is used now.

    `use` is empty for `default`, which every user has by itself: `limits/use` tells of each. `configured`, of `default`
    alone: the configuration's values, which come back where it is cleared.
    """

    target: str
    effective: LimitValues | None = None
    configured: LimitValues | msgspec.UnsetType = msgspec.UNSET
    use: list[LimitUse] = []


class LimitsUse(Request):
    """`limits use [TARGET]`: without a target, every limit of which something is used, the fullest first."""

    target: str | None = None
    most: int = 200


class LimitsTry(Request):
    """`limits try TARGET --requests-per-minute N … [--since 24h]`: what recorded traffic would have met.

    `values` as for `limits/set`: what is not named stays as it is. `since`: a moment; None: 24 hours ago.
    """

    target: str
    values: LimitValues
    since: str | None = None


class TriedUser(Message):
    """What one user would have met."""

    user: str
    requests: int
    refused: int
    refused_now: int  # under the limits in force


class TriedLimit(Message):
    """How many one limit would have refused: of several that are full, the one that frees last."""

    target: str
    limit: str
    refused: int


class LimitsTried(Message):
    """`limits/try`: the real windows, replayed over every request of the period that was admitted or met a full window.

    Of refusals the journal knows how many there were in which minute: they are spread over what was left of it. One
    that would have been admitted costs no tokens, as nobody knows how many. Seats, the queue and `concurrency`, which
    never refuses, are not replayed.
    """

    target: str
    since: str
    until: str
    requests: int
    refused: int  # under the proposed limits
    refused_now: int  # the same replay under the limits in force
    refused_then: int  # what was really refused, as recorded
    users: list[TriedUser]  # those with a refusal, most first
    limits: list[TriedLimit]
    complete: bool  # False: the replay ran out of time, and `until` is how far it came
    seconds: float
    concerned: int | None = None  # of `requests`: those that the target's values are for; None: from an older gateway


class LimitsSet(Request):
    """`limits set TARGET --requests-per-minute N|unlimited …`: what is not named stays as it is.

    `seen`: the target's own values as the administrator saw them; Conflict if they are others now.
    """

    target: str
    values: LimitValues
    seen: LimitValues | None = None


class LimitTarget(Request):
    """`limits clear TARGET`; `seen` as for `limits/set`."""

    target: str
    seen: LimitValues | None = None


# -- models and upstreams ---------------------------------------------------------------------------------------------


class ModelsList(Request):
    """`models list`."""

    upstream: str | None = None


class ModelRow(Message):
    """An installed model on one upstream."""

    name: str
    upstream: str
    size: int | None
    family: str | None
    parameters: str | None  # "7.6B"
    quantization: str | None
    modified: str | None
    loaded: bool | None  # None where the upstream does not tell
    default: bool
    memory: int | None = None  # bytes that it takes while loaded
    vram: int | None = None  # bytes of it on the GPU
    expires: str | None = None  # when it is unloaded if nobody asks it
    context: int | None = None  # tokens of context that it is loaded with


class ModelTarget(Request):
    """One model by name; the upstream where several have it."""

    model: str
    upstream: str | None = None


class PullProgress(Message):
    """One step of a pull, as the upstream tells it; bytes."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


class ModelDetail(Message):
    """`models show`: what the upstream says of the model."""

    name: str
    upstream: str
    information: dict[str, Any]


class ModelAccess(Message):
    """`models access`: one way in which somebody may use the model. Addresses and expiry may narrow it further."""

    user: str
    by: Literal["login", "key"]
    key: str | None  # its id
    label: str
    pattern: str | None  # the pattern of the key that lets the model in; None: every model


class ModelDeleted(Message):
    """`models delete`."""

    name: str
    upstream: str
    deleted: bool


class UpstreamRow(Message):
    """An inference server behind the gate."""

    name: str
    kind: str
    url: str
    state: Literal["ok", "down", "unknown"]
    error: str | None  # what it said, or did, last time it failed
    version: str | None
    seats: int
    running: int
    queued: int
    models: int | None
    probed_seats: int | None  # how many really run at once, where that was ever found out
    drained: bool = False  # takes nothing new; what runs there goes on
    latency_ms: float | None = None  # of the last look at its models
    last_error: str | None = None  # how it failed last, though it may answer again
    loaded: int | None = None  # models in its memory, as it last told; None: it was not asked, or does not tell
    vram: int | None = None  # bytes that they take on the GPU
    cloud: bool = False  # outside of the LAN: asked nothing unless `enabled`
    enabled: bool = False  # whether what leaves the LAN there may be used by users who may
    has_key: bool = False  # whether it is shown a key
    resting: list[str] = []  # models that failed there and are left alone for a while


class UpstreamTarget(Request):
    """One upstream by name."""

    name: str


class UpstreamsKey(Request):
    """`upstreams key NAME [--clear]`: the secret that the upstream wants to see; None: none any more. Never told."""

    name: str
    key: str | None

    def __repr__(self) -> str:
        return f"UpstreamsKey(name={self.name!r})"


class ProbeResult(Message):
    """How many requests the upstream really ran at once, and how many seats it has."""

    name: str
    model: str | None
    measured: int
    seats: int


class UpstreamsSeats(Request):
    """`upstreams seats NAME N`."""

    name: str
    seats: Annotated[int, msgspec.Meta(ge=1, le=4096)]


# -- live -------------------------------------------------------------------------------------------------------------


class LiveRow(Message):
    """An exchange that has not ended."""

    request_id: str
    state: Literal["queued", "prefill", "run"]
    position: int | None  # 1 = next
    user: str
    key: str | None
    client_label: str
    address: str
    route: str
    model: str
    upstream: str
    stream: bool
    received: str
    seated: str | None
    first_byte: str | None
    chunks_out: int
    bytes_out: int
    tokens_out: int = 0  # pieces so far, each about a token
    tokens_per_second: float | None = None  # over the last few seconds; None: not known yet
    piece_age: float | None = None  # seconds since the upstream's last piece; None: none came yet
    estimated_wait: float | None = None  # seconds until it is seated, by recent exchanges


EndedState = Literal[
    "ok",
    "client_left",
    "upstream_error",
    "timeout_connect",
    "timeout_first_byte",
    "timeout_idle",
    "timeout_total",
    "queue_timeout",
    "cancelled_by_admin",
    "user_disabled",
    "credential_revoked",
    "budget_spent",
    "shutdown",
    "refused",
    "crashed",
]


class EndedRow(Message):
    """An exchange that ended a moment ago, or (`count`) refusals of one caller for one reason.

    `id` names the row on the watch stream: an exchange's request id, which was its live row's.
    """

    id: str
    request_id: str  # empty for refusals, which have none
    state: EndedState
    error: str | None  # why; of refusals the limit or the reason
    count: int  # 1; of refusals how many since `received`
    user: str
    key: str | None
    client_label: str
    address: str
    route: str
    model: str
    upstream: str
    received: str  # of refusals the first
    ended: str  # of refusals the latest
    elapsed: float  # seconds from received to ended
    tokens_in: int | None
    tokens_out: int | None
    tokens_per_second: float | None  # out, from the first byte to the end; None: too few or too soon to say


class LiveTarget(Request):
    """One live exchange, by request id or the beginning of it (as for `cancel`)."""

    request_id: str


class LiveExchange(Message):
    """`live/show`: a running exchange with what it holds. That it was looked at is recorded."""

    row: LiveRow
    prompt: str  # the prompt, or the last user message, as text
    messages: Any  # the whole request; None where it is larger than a megabyte
    request_bytes: int  # about how large it is
    options: dict[str, Any]  # what the request asks for besides: temperature, num_ctx, max_tokens …
    answer: str  # so far, as text; its last 256 Ki characters
    thinking: str
    answer_cut: bool  # its beginning is left out
    user_agent: str
    model_asked: str
    log_id: int | None  # None while it is being recorded
    admitted: str
    limits: list[LimitUse]  # every limit that it is under, the fullest first


class LiveNews(Message):
    """A message of `live/follow`, at most four a second: the first has `exchange`, the last `ended`.

    `gained` and `thinking` are text to put behind what was shown. `skipped`: text was left out, as this viewer reads
    too slowly or the answer is too fast; the audit has it whole.
    """

    exchange: LiveExchange | None = None
    row: LiveRow | None = None
    gained: str = ""
    thinking: str = ""
    skipped: bool = False
    ended: EndedRow | None = None


class CancelRequest(Request):
    """`cancel ID`: the id, or a beginning of at least 8 characters that no other live request has."""

    request_id: str


class Cancelled(Message):
    """`cancelled` is false where the exchange had just ended by itself."""

    request_id: str
    cancelled: bool


# -- audit ------------------------------------------------------------------------------------------------------------


class AuditFilter(Message):
    """What records are wanted; every field that is given must hold. Moments are ISO 8601."""

    user: str | None = None
    key: str | None = None
    model: str | None = None
    state: str | None = None
    route: str | None = None
    upstream: str | None = None
    address: str | None = None
    client_label: str | None = None
    request_id: str | None = None
    since: str | None = None
    until: str | None = None
    text: str | None = None  # in prompt or answer; without `since` the last 24 hours are looked through


class AuditSearch(Request):
    """`audit search FILTER… [--limit 50] [--before LOG_ID]`: newest first."""

    filter: AuditFilter = msgspec.field(default_factory=AuditFilter)
    limit: int = 50
    before: int | None = None


class AuditRow(Message):
    """One exchange of the journal, without bodies. `state` is None while it runs."""

    log_id: int
    request_id: str
    timestamp: str
    user: str
    key: str | None
    client_label: str
    address: str
    route: str
    model: str
    upstream: str
    state: str | None
    error: str | None
    tokens_in: int | None
    tokens_out: int | None
    received: str
    admitted: str | None
    seated: str | None
    first_byte: str | None
    ended: str | None
    prompt: str  # its beginning
    erased: bool = False  # the prompt was erased


class AuditShow(Request):
    """`audit show REQUEST_ID|LOG_ID`. That it was looked at is recorded."""

    id: str


class AuditExchange(Message):
    """One exchange, whole. The names that an export has, too, mean the same there.

    Refusals of one caller, reason and minute are one, without `request_id`: `error` says why and how often.
    """

    log_id: int
    prompt: str
    response: str
    timestamp: str
    request_id: str
    user: str
    key: str | None
    client_label: str
    address: str
    user_agent: str
    route: str
    model_asked: str
    model: str
    upstream: str
    stream: bool
    state: str | None
    error: str | None
    tokens_in: int | None
    tokens_out: int | None
    bytes_out: int | None
    received: str
    admitted: str | None
    seated: str | None
    first_byte: str | None
    ended: str | None
    messages: Any  # the whole request
    answer: Any  # the whole answer's message, thinking and tool calls included
    erased: bool  # its bodies were erased
    tried: list[TriedUpstream] = []  # where it failed before the first byte, before it went to `upstream`
    cost: str | None = None  # in `currency`, as a decimal number; None: the model has no known price
    currency: str | None = None


class TriedUpstream(Message):
    """An upstream that failed, so that another one was asked."""

    upstream: str
    model: str
    error: str


class AuditPosition(Request):
    """`audit position REQUEST_ID|LOG_ID`."""

    id: str


class ChainLink(Message):
    """One record of the journal in the chain; hashes are hexadecimal."""

    seq: int
    event: str
    at: str
    previous: str  # hash of the record before
    hash: str


class ChainSeal(Message):
    """The first signed checkpoint at or behind a record: nothing up to `seq` can change unnoticed."""

    seq: int
    hash: str
    at: str
    key: str  # which signing key


class ChainPosition(Message):
    """Where an exchange stands in the chain: its opening and its closing record, and what seals the later of them.

    From its opening to the seal (without one, to its end) the chain was hashed anew and the seal's signature checked:
    `problems` is what is wrong. What came before, and the bodies, only `audit/verify` looks at.
    """

    log_id: int
    request_id: str
    links: list[ChainLink]
    seal: ChainSeal | None  # None: not sealed yet
    head_seq: int
    checked: int = 0  # records hashed anew
    whole: bool = True  # False: the seal is so far away that not all of them were
    problems: list[str] = []


class AuditAdmin(Request):
    """`audit admin [FILTER]… [--limit 50] [--before LOG_ID]`: what administrators did and looked at, newest first.

    `verb` is a verb's beginning ("users", "audit show"); `target` contains; moments are ISO 8601.
    """

    actor: str | None = None
    verb: str | None = None
    target: str | None = None
    since: str | None = None
    until: str | None = None
    limit: int = 50
    before: int | None = None


class AdminRecord(Message):
    """One thing that somebody did on the admin socket (`via`), or the daemon itself."""

    log_id: int
    timestamp: str
    actor: str
    uid: int | None
    via: str
    verb: str
    target: str
    detail: dict[str, Any]


class AuditExport(Request):
    """`audit export [--user EMAIL] [--since …] [--until …] [--format csv|jsonl]`."""

    user: str | None = None
    since: str | None = None
    until: str | None = None
    format: Literal["csv", "jsonl"] = "csv"


class AuditExported(Request):
    """What the caller has on its disk of an export: read back from the file after the rename."""

    export: str
    sha256: str
    bytes: int
    file: str


class ExportReport(Message):
    """Whether what lies in the file is what was sent; `through_log_id` is the last record that it covers."""

    export: str
    verified: bool
    sha256: str
    bytes: int
    file: str
    through_log_id: int | None


class AuditVerify(Request):
    """`audit verify [--expect SEQ:HASH]`."""

    expect: str | None = None


class VerifyReport(Message):
    """What a look at the whole journal found; `unsealed` records follow the last signed checkpoint."""

    intact: bool
    records: int
    unsealed: int
    head_seq: int
    head_hash: str
    problems: list[str]


# -- usage ------------------------------------------------------------------------------------------------------------

UsageBy = Literal["user", "model", "key", "client"]


class UsageRequest(Request):
    """`usage [--since 24h] [--until MOMENT] [--by user|model|key|client] [--top N] [--user EMAIL]`.

    Counted is what was received from `since` (None: 24 hours ago) until `until` (None: now).
    """

    since: str | None = None
    until: str | None = None
    by: UsageBy = "user"
    top: int = 20
    user: str | None = None  # only this user's


class UsageRow(Message):
    """What was used, by whom or what. An exchange counts where it was received, with what it cost in the end."""

    name: str
    requests: int  # admitted
    tokens_in: int
    tokens_out: int
    gpu_seconds: float  # from seat to end
    ok: int
    errors: int  # upstream_error, timeout_*, queue_timeout, shutdown, crashed
    departures: int  # client_left
    cut: int  # cancelled_by_admin, user_disabled, credential_revoked, budget_spent
    refusals: int  # never admitted


class UsageBucket(UsageRow, kw_only=True):
    """A point of the time series; `name` is empty."""

    start: str


class Usage(Message):
    """`usage`: everything together, the `top` rows by tokens out, what the others used, and the time series."""

    since: str
    until: str
    by: UsageBy
    total: UsageRow
    rows: list[UsageRow]
    others: UsageRow | None  # None: `rows` are all
    bucket_seconds: int
    series: list[UsageBucket]


# -- jobs -------------------------------------------------------------------------------------------------------------

JobKind = Literal["export", "verify", "retention"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]


class JobRow(Message):
    """Work that belongs to the daemon and goes on when whoever asked for it has left.

    Of what is running, `step` says what it does now and `done` of `total` how far it is, both in `unit`; the rate, a
    second, is that of the step. `target` is what it is about in the words of a search (`user:ana@example.org state:ok`,
    `until:2026-01-31T00:00:00.000000Z`), "everybody" where nothing narrows it.
    """

    id: int
    kind: JobKind
    state: JobState
    actor: str  # the account that asked; "gatelodged" where it is the daily retention
    target: str
    format: Literal["csv", "jsonl"] | None  # of the file, where one is written
    step: str  # "exporting", "reading back", "verifying", "erasing", "freeing space" …; empty unless it runs
    done: int
    total: int | None  # None: not known yet
    unit: Literal["exchanges", "records", "bytes", "parts", "pages"]
    rate: float | None
    eta_seconds: float | None  # of this step
    path: str | None  # of the file, once it lies there whole
    bytes: int | None
    sha256: str | None
    records: int | None  # exchanges in the file, or records verified
    result: str  # what came of it, in words: "intact, 12 unsealed", "bodies of 1204 exchanges erased"
    error: str | None  # why it failed
    created: str
    started: str | None
    ended: str | None


class JobsList(Request):
    """`jobs list [--state STATE] [--limit 50]`: newest first."""

    state: JobState | None = None
    limit: int = 50


class JobTarget(Request):
    """One job, by its number."""

    id: int


class JobsExport(Request):
    """`audit export --job FILTER…`: to a file in the daemon's folder of exports, verified there.

    An export that nothing but `user` narrows lets the user be deleted.
    """

    filter: AuditFilter = msgspec.field(default_factory=AuditFilter)
    format: Literal["csv", "jsonl"] = "csv"


class JobsVerify(Request):
    """`audit verify --job [--expect SEQ:HASH]`: `failed` where the journal is not intact, with the problems."""

    expect: str | None = None


class JobsRetention(Request):
    """`audit retain [--before MOMENT] [--exported]`: export, verify, erase the bodies of what was received before then.

    Without `before`, what the configuration says (`retention.days`). `exported`: write no file, erase what an export of
    everybody's exchanges, verified before as JSONL, holds.
    """

    before: str | None = None
    exported: bool = False


# -- the watch stream -------------------------------------------------------------------------------------------------

Kind = Literal["live", "ended", "user", "registration", "key", "upstream", "job"]


class Totals(Message):
    """The head line of the console."""

    running: int
    seats: int
    queued: int
    oldest_queued: str | None  # when the one that waits longest was received
    tokens_per_second: float = 0.0  # out, of all that run
    refused_last_minute: int = 0  # requests that met a full window, a full queue or a policy
    ended_lately: int = 0  # exchanges that ended in the last five minutes
    errors_lately: int = 0  # of them those that failed (as `UsageRow.errors`)


class Named(Message):
    """Which row: its kind, and its id (request_id, EndedRow.id, user id, registration code, key id, upstream, job)."""

    kind: Kind
    id: str


class Changed(Named):
    """A row as it is now; by its kind LiveRow, EndedRow, UserRow (a registration, too), KeyRow, UpstreamRow, JobRow."""

    row: msgspec.Raw


class Hello(Message, tag_field="type", tag="hello"):
    """First of all: who speaks. Another `boot_id` than last time: the daemon was started anew."""

    protocol_version: int
    version: str
    boot_id: str


class Snapshot(Message, tag_field="type", tag="snapshot"):
    """Everything as it is at `seq`; what was known before is void."""

    seq: int
    rows: list[Changed]
    totals: Totals


class Batch(Message, tag_field="type", tag="batch"):
    """What changed between `after` (the last message's `seq`, else something is missing) and `seq`; at most 4 Hz."""

    after: int
    seq: int
    changed: list[Changed]
    gone: list[Named]
    totals: Totals


class Heartbeat(Message, tag_field="type", tag="heartbeat"):
    """Nothing changed for five seconds; the daemon is there."""

    seq: int


class Goodbye(Message, tag_field="type", tag="goodbye"):
    """The last message: why the daemon ends this stream."""

    reason: str


WatchMessage = Hello | Snapshot | Batch | Heartbeat | Goodbye


# -- the verbs --------------------------------------------------------------------------------------------------------

Q = TypeVar("Q", bound=Request)
A = TypeVar("A")


@dataclass(frozen=True)
class Verb(Generic[Q, A]):
    """One verb. `answer` is the document's type, or of many items each one's; `changes` marks those that change."""

    name: str  # and its path on the socket
    request: type[Q]
    answer: type[A]
    form: Literal["one", "many", "raw"] = "one"
    changes: bool = False


STATUS = Verb("status", Nothing, Status)
DOCTOR = Verb("doctor", Nothing, list[Finding])
SELFTEST = Verb("selftest", SelftestRequest, SelftestStep, form="many", changes=True)

USERS_LIST = Verb("users/list", UsersList, list[UserRow])
USERS_SHOW = Verb("users/show", UserTarget, UserDetail)
USERS_ADD = Verb("users/add", UsersAdd, UserAdded, changes=True)
USERS_APPROVE = Verb("users/approve", UsersApprove, UserRow, changes=True)
USERS_DISCARD = Verb("users/discard", UsersDiscard, UserDiscarded, changes=True)
USERS_DISABLE = Verb("users/disable", UserTarget, UserRow, changes=True)
USERS_ENABLE = Verb("users/enable", UserTarget, UserRow, changes=True)
USERS_RESET_PASSWORD = Verb("users/reset-password", UserTarget, OneTimePassword, changes=True)
USERS_ROLE = Verb("users/role", UsersRole, UserRow, changes=True)
USERS_NOTES = Verb("users/notes", UsersNotes, UserRow, changes=True)
USERS_INLINE_AUTH = Verb("users/inline-auth", UsersInlineAuth, UserRow, changes=True)
USERS_CLOUD = Verb("users/cloud", UsersCloud, UserRow, changes=True)
USERS_DELETE = Verb("users/delete", UserTarget, UserDeleted, changes=True)

KEYS_ISSUE = Verb("keys/issue", KeysIssue, IssuedKey, changes=True)
KEYS_LIST = Verb("keys/list", KeysList, list[KeyRow])
KEYS_ROTATE = Verb("keys/rotate", KeysRotate, RotatedKey, changes=True)
KEYS_REVOKE = Verb("keys/revoke", KeyTarget, KeyRow, changes=True)
KEYS_IMPORT = Verb("keys/import", KeysImport, list[ImportedKey], changes=True)

LIMITS_SHOW = Verb("limits/show", LimitsShow, list[LimitRow])
LIMITS_USE = Verb("limits/use", LimitsUse, list[LimitUse])
LIMITS_TRY = Verb("limits/try", LimitsTry, LimitsTried)
LIMITS_SET = Verb("limits/set", LimitsSet, LimitRow, changes=True)
LIMITS_CLEAR = Verb("limits/clear", LimitTarget, LimitRow, changes=True)

MODELS_LIST = Verb("models/list", ModelsList, list[ModelRow])
MODELS_SHOW = Verb("models/show", ModelTarget, ModelDetail)
MODELS_ACCESS = Verb("models/access", ModelTarget, list[ModelAccess])
MODELS_PULL = Verb("models/pull", ModelTarget, PullProgress, form="many", changes=True)
MODELS_DELETE = Verb("models/delete", ModelTarget, ModelDeleted, changes=True)

UPSTREAMS_LIST = Verb("upstreams/list", Nothing, list[UpstreamRow])
UPSTREAMS_PROBE = Verb("upstreams/probe", UpstreamTarget, ProbeResult)
UPSTREAMS_SEATS = Verb("upstreams/seats", UpstreamsSeats, UpstreamRow, changes=True)
UPSTREAMS_DRAIN = Verb("upstreams/drain", UpstreamTarget, UpstreamRow, changes=True)
UPSTREAMS_UNDRAIN = Verb("upstreams/undrain", UpstreamTarget, UpstreamRow, changes=True)
UPSTREAMS_ENABLE = Verb("upstreams/enable", UpstreamTarget, UpstreamRow, changes=True)
UPSTREAMS_DISABLE = Verb("upstreams/disable", UpstreamTarget, UpstreamRow, changes=True)
UPSTREAMS_KEY = Verb("upstreams/key", UpstreamsKey, UpstreamRow, changes=True)

LIVE = Verb("live", Nothing, list[LiveRow])
LIVE_ENDED = Verb("live/ended", Nothing, list[EndedRow])
LIVE_SHOW = Verb("live/show", LiveTarget, LiveExchange)
LIVE_FOLLOW = Verb("live/follow", LiveTarget, LiveNews, form="many")
CANCEL = Verb("cancel", CancelRequest, Cancelled, changes=True)

AUDIT_SEARCH = Verb("audit/search", AuditSearch, AuditRow, form="many")
AUDIT_SHOW = Verb("audit/show", AuditShow, AuditExchange)
AUDIT_POSITION = Verb("audit/position", AuditPosition, ChainPosition)
AUDIT_ADMIN = Verb("audit/admin", AuditAdmin, list[AdminRecord])
AUDIT_EXPORT = Verb("audit/export", AuditExport, bytes, form="raw")
AUDIT_EXPORTED = Verb("audit/exported", AuditExported, ExportReport, changes=True)
AUDIT_VERIFY = Verb("audit/verify", AuditVerify, VerifyReport)

JOBS_LIST = Verb("jobs/list", JobsList, list[JobRow])
JOBS_SHOW = Verb("jobs/show", JobTarget, JobRow)
JOBS_CANCEL = Verb("jobs/cancel", JobTarget, JobRow, changes=True)
JOBS_EXPORT = Verb("jobs/export", JobsExport, JobRow, changes=True)
JOBS_VERIFY = Verb("jobs/verify", JobsVerify, JobRow, changes=True)
JOBS_RETENTION = Verb("jobs/retention", JobsRetention, JobRow, changes=True)

USAGE = Verb("usage", UsageRequest, Usage)

VERBS: tuple[Verb[Any, Any], ...] = tuple(value for value in list(globals().values()) if isinstance(value, Verb))
