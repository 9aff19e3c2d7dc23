"""The daemon's configuration: flag > environment > file > default, checked once, frozen afterwards.

Every key is a field of a struct below; its comment is its documentation's source (`docs/configuration.md` lists all of
them, and a test says so). Rule: an error names where the value came from, the key, the value and what is allowed.
Durations are seconds, sizes are bytes. Limits given here seed a new database once; afterwards the database rules.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from common.errors import StartError

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Bytes = Annotated[int, Meta(ge=0)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

DEFAULT_OLLAMA = "http://127.0.0.1:11434"
BUILTIN = "builtin"


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where and how the LAN is served."""

    host: str = "127.0.0.1"  # address to listen on; the installed unit sets 0.0.0.0
    port: Port = 7000  # 0 takes any free port
    connections_per_address: Count = 1024  # open connections one client address may hold; trusted proxies are exempt
    trusted_proxies: tuple[str, ...] = ()  # address ranges whose X-Forwarded-For is believed
    allowed_hosts: tuple[str, ...] = ()  # Host names served; empty serves every name
    cors_origins: tuple[str, ...] = ()  # browser origins allowed to read answers; empty allows none
    max_body: Count = 32 * 1024 * 1024  # largest request body
    certificate: str = ""  # PEM file with the certificate chain; together with `key` turns on TLS
    key: str = ""  # PEM file with the private key


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A further listener with the same routes."""

    host: str  # address to listen on
    port: Port  # port to listen on
    certificate: str = ""  # PEM file with the certificate chain
    key: str = ""  # PEM file with the private key


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where data lives."""

    data: str = ""  # folder of database, keys and socket; default: $STATE_DIRECTORY, else /var/lib/gatelodge
    min_free: Bytes = 1024 * 1024 * 1024  # free disk space below which no request is admitted
    ballast: Bytes = 64 * 1024 * 1024  # room held for freeing room on a full disk; at most a 16th of the disk


class UpstreamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One inference server behind the gate."""

    name: Name  # how it is called in the console and the audit
    kind: Literal["ollama", "openai", "anthropic"] = "ollama"  # the dialect it speaks
    url: str  # http:// or https:// address; a path in it is put before each request's
    seats: Count = 1  # how many requests it runs at once
    cloud: bool | None = None  # whether it is outside of this network; unset: told from its address
    key_file: str = ""  # file with the key it wants; a name without a path: of systemd's LoadCredential
    authority: str = ""  # PEM file of the authority that vouches for its certificate; empty: the system's
    proxy: str = ""  # http:// address of a proxy on the way to it (CONNECT); empty: none, whatever the environment says

    @property
    def is_cloud(self) -> bool:
        """Whether what is sent to it leaves the LAN."""
        return is_outside(urlsplit(self.url).hostname or "") if self.cloud is None else self.cloud


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every user may do unless told otherwise; seeds the database once."""

    requests_per_minute: Annotated[int, Meta(ge=0)] | None = 10  # requests in any 60 seconds
    requests_per_hour: Annotated[int, Meta(ge=0)] | None = None  # requests in any hour
    requests_per_day: Annotated[int, Meta(ge=0)] | None = None  # requests in any 24 hours
    tokens_per_minute: Annotated[int, Meta(ge=0)] | None = None  # tokens, in and out, in any 60 seconds
    tokens_per_day: Annotated[int, Meta(ge=0)] | None = None  # tokens, in and out, in any 24 hours
    concurrency: Count | None = None  # requests running at once; further ones wait


class Alias(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A name for a model, with what stands in where that cannot be had."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]  # what clients ask for
    models: tuple[str, ...]  # what they get: the first that can be had, as `model` or `upstream/model`


class Models(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Model names and prices."""

    default: str = ""  # used where a request names none; else the only or first installed chat model
    prices: str = ""  # TOML file of what models cost; empty: DATA/prices.toml, else the one that ships


class Queue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The line in front of each upstream."""

    size: Count = 512  # requests that may wait for one upstream
    per_user: Count = 128  # of these, at most so many of one user
    longest_wait: Seconds = 600.0  # a request that waited so long is refused


class Deadlines(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long an upstream may take, and a stop; pull and push are exempt from `total`."""

    connect: Seconds = 5.0  # until the connection stands
    first_byte: Seconds = 300.0  # until the answer begins; a cold load takes minutes
    idle: Seconds = 120.0  # between two pieces of an answer
    total: Seconds = 3600.0  # for the whole exchange, from its seat on
    shutdown: Annotated[float, Meta(ge=0)] = 20.0  # how long what runs may go on once the daemon is asked to stop


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may ask to be let in."""

    per_address_per_hour: Count = 10  # registrations an hour from one address; loopback exempt without a proxy
    pending: Count = 1000  # entries that may wait for approval
    self_issued_keys: bool = True  # whether users may issue API keys to themselves


class Passwords(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Cost of password hashes (argon2id); raising it rehashes at the next login."""

    memory_kib: Annotated[int, Meta(ge=19 * 1024)] = 19 * 1024  # memory of one hash
    time: Annotated[int, Meta(ge=2)] = 2  # passes over that memory
    parallelism: Annotated[int, Meta(ge=1, le=16)] = 1  # lanes


class Tokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Lifetimes of what is issued at log-in."""

    access_lifetime: Annotated[float, Meta(gt=0, le=600)] = 600.0  # of an access token, at most ten minutes
    refresh_lifetime: Seconds = 30 * 24 * 3600.0  # of a refresh token that is not used
    signing_key_lifetime: Seconds = 30 * 24 * 3600.0  # then a new signing key takes over; the old one verifies on


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long prompts and answers are kept; what goes is exported first."""

    days: Count | None = None  # bodies older than that are exported, verified and erased, daily; unset keeps them
    directory: str = ""  # where the daemon writes exports, its own and those asked for; empty: DATA/exports


class Admin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The administrators' Unix socket."""

    group: str = ""  # group that may use the socket, besides its owner; empty: the owner alone


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The daemon's log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"  # least severity that is written
    format: Literal["auto", "text", "json"] = "auto"  # auto: text on a terminal, JSON otherwise


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration, as the daemon runs it."""

    server: Server = Server()
    listen: tuple[Listen, ...] = ()
    storage: Storage = Storage()
    upstreams: tuple[UpstreamConfig, ...] = ()
    aliases: tuple[Alias, ...] = ()
    limits: Limits = Limits()
    models: Models = Models()
    queue: Queue = Queue()
    deadlines: Deadlines = Deadlines()
    registration: Registration = Registration()
    passwords: Passwords = Passwords()
    tokens: Tokens = Tokens()
    retention: Retention = Retention()
    admin: Admin = Admin()
    log: Log = Log()

    @property
    def data(self) -> Path:
        """The data folder, absolute."""
        return Path(self.storage.data).absolute()


# What SIGHUP takes up without a restart; every other key waits for one, and the log says so (`daemon/reload.py`). Of a
# TLS pair also the files are read again; a listener's address, and whether it speaks TLS, stay.
ON_RELOAD = frozenset(
    {
        "server.connections_per_address",
        "server.trusted_proxies",
        "server.allowed_hosts",
        "server.cors_origins",
        "server.max_body",
        "server.certificate",
        "server.key",
        "listen[].certificate",
        "listen[].key",
        "storage.min_free",
        "upstreams[].name",
        "upstreams[].kind",
        "upstreams[].url",
        "upstreams[].seats",
        "upstreams[].cloud",
        "upstreams[].key_file",
        "upstreams[].authority",
        "upstreams[].proxy",
        "aliases[].name",
        "aliases[].models",
        "models.default",
        "models.prices",
        "queue.size",
        "queue.per_user",
        "queue.longest_wait",
        "deadlines.connect",
        "deadlines.first_byte",
        "deadlines.idle",
        "deadlines.total",
        "deadlines.shutdown",
        "registration.self_issued_keys",
        "log.level",
    }
)

# Environment names that are not configuration keys.
_OTHER_ENVIRONMENT = {"GATELODGE_SOCKET", "GATELODGE_CONFIG"}


def load(
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration from `flags` (dotted key -> value), `environment` and the TOML `file`; StartError if wrong.

    Without `file`, DATA/gatelodge.toml is read where it exists.
    """
    environment = os.environ if environment is None else environment
    flags = {key: value for key, value in (flags or {}).items() if value is not None}
    layers: list[tuple[str, dict[str, Any]]] = []
    from_environment = _environment_layer(environment)
    from_flags = _nested(flags)
    if file is None:
        file = _file_in_data(from_flags, from_environment, environment)
    if file is not None:
        layers.append((str(file), _file_layer(file)))
    layers.append(("the environment", from_environment))
    layers.append(("the command line", from_flags))

    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, layer in layers:
        _read_unlimited(layer)
        _check(layer, source)
        _merge(merged, layer, source, origin, ())
    config = msgspec.convert(merged, Config)
    if not config.upstreams and environment.get("OLLAMA_BASE_URL"):
        url = _ollama_url(environment["OLLAMA_BASE_URL"])
        origin["upstreams"] = "OLLAMA_BASE_URL"
        config = msgspec.structs.replace(config, upstreams=(UpstreamConfig(name="ollama", url=url),))
    if not config.storage.data:
        placed = msgspec.structs.replace(config.storage, data=_default_data(environment))
        config = msgspec.structs.replace(config, storage=placed)
    _check_whole(config, origin)
    return config


def with_ollama(url: str | None, seats: int | None) -> list[dict[str, Any]] | None:
    """The list of upstreams that `--ollama URL` and `--seats N` mean, or None where neither is given."""
    if url is None and seats is None:
        return None
    url = _ollama_url(DEFAULT_OLLAMA if url is None else url)
    return [{"name": "ollama", "url": url, "seats": 1 if seats is None else seats}]


def keys() -> list[tuple[str, str, Any]]:
    """Every key as (dotted name, type in words, default), for the documentation and its test."""
    rows: list[tuple[str, str, Any]] = []
    for section in msgspec.structs.fields(Config):
        struct, many = _section_type(section.type)
        for entry in msgspec.structs.fields(struct):
            name = f"{section.encode_name}[].{entry.name}" if many else f"{section.encode_name}.{entry.name}"
            default = None if entry.default is msgspec.NODEFAULT else entry.default
            rows.append((name, _words(entry.type), default))
    return rows


def taken_up(running: Config, read: Config) -> tuple[Config, list[str], list[str]]:
    """What a reload makes of `running`: (the configuration from now on, keys that changed, keys that need a restart).

    A list of tables counts as one key: `upstreams`, `listen`.
    """
    now: dict[str, Any] = {}
    changed: list[str] = []
    waiting: list[str] = []
    for section in msgspec.structs.fields(Config):
        before, after = getattr(running, section.name), getattr(read, section.name)
        if before == after:
            continue
        if isinstance(before, tuple):
            if _replaceable(section.name, before, after):
                now[section.name] = after
                changed.append(section.name)
            else:
                waiting.append(section.name)
            continue
        taken: dict[str, Any] = {}
        for field in msgspec.structs.fields(before):
            key = f"{section.name}.{field.name}"
            old, new = getattr(before, field.name), getattr(after, field.name)
            if old == new:
                continue
            turns_tls_on_or_off = field.name in {"certificate", "key"} and bool(old) != bool(new)
            if key in ON_RELOAD and not turns_tls_on_or_off:
                taken[field.name] = new
                changed.append(key)
            else:
                waiting.append(key)
        now[section.name] = msgspec.structs.replace(before, **taken)
    return msgspec.structs.replace(running, **now), changed, waiting


def _replaceable(name: str, before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    """Whether a list of tables may be exchanged while requests run."""
    if name == "upstreams":
        # Without any the daemon chose one at its start, perhaps an engine of its own, which it goes on with.
        return bool(before) and bool(after)
    if name == "aliases":
        return True
    if name == "listen":
        return [(each.host, each.port, bool(each.certificate)) for each in before] == [
            (each.host, each.port, bool(each.certificate)) for each in after
        ]
    return False


def _file_in_data(
    flags: dict[str, Any], from_environment: dict[str, Any], environment: Mapping[str, str]
) -> Path | None:
    named = environment.get("GATELODGE_CONFIG")
    if named:
        return Path(named)
    data = flags.get("storage", {}).get("data") or from_environment.get("storage", {}).get("data")
    candidate = Path(data or _default_data(environment)) / "gatelodge.toml"
    return candidate if candidate.is_file() else None


def _default_data(environment: Mapping[str, str]) -> str:
    """Where data lies that nobody places: `./run` and systemd say so by STATE_DIRECTORY."""
    return environment.get("STATE_DIRECTORY", "").split(":")[0] or "/var/lib/gatelodge"


def _file_layer(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"cannot read the configuration file {file}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"{file} is not valid TOML: {error}") from error


def _environment_layer(environment: Mapping[str, str]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for name, text in sorted(environment.items()):
        if not name.startswith("GATELODGE_") or name in _OTHER_ENVIRONMENT:
            continue
        path = name.removeprefix("GATELODGE_").lower().split("__")
        kind = _type_at(path)
        if kind is None:
            raise StartError(f"the environment: {name} names no configuration key (see docs/configuration.md)")
        value: Any = text
        if len(path) == 1:
            try:
                value = msgspec.json.decode(text)
            except msgspec.DecodeError as error:
                raise StartError(f"the environment: {name} must be JSON: {error}") from error
        elif get_origin(kind) is tuple:
            value = [word.strip() for word in text.split(",") if word.strip()]
        else:
            value = _scalar(text, kind, name)
        _put(layer, path, value)
    return layer


def _scalar(text: str, kind: Any, name: str) -> Any:
    kinds = get_args(kind) if type(None) in get_args(kind) else (kind,)
    if type(None) in kinds and text.lower() in {"", "unlimited"}:
        return None
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        key = name.removeprefix("GATELODGE_").lower().replace("__", ".")
        raise StartError(f"the environment: {name} = {text!r}: {key} {_allowed(key)}") from error


def _type_at(path: list[str]) -> Any:
    sections = {entry.name: entry.type for entry in msgspec.structs.fields(Config)}
    if path[0] not in sections or len(path) > 2:
        return None
    struct, many = _section_type(sections[path[0]])
    if len(path) == 1:
        return sections[path[0]] if many else None
    if many:
        return None
    hints = get_type_hints(struct, include_extras=True)
    return hints.get(path[1])


def _section_type(kind: Any) -> tuple[type[msgspec.Struct], bool]:
    if get_origin(kind) is tuple:
        return get_args(kind)[0], True
    return kind, False


def _nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for key, value in flags.items():
        _put(layer, key.split("."), value)
    return layer


def _put(layer: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        layer = layer.setdefault(part, {})
    layer[path[-1]] = value


def _merge(
    into: dict[str, Any], layer: dict[str, Any], source: str, origin: dict[str, str], path: tuple[str, ...]
) -> None:
    for key, value in layer.items():
        here = (*path, key)
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value, source, origin, here)
        else:
            into[key] = value
            origin[".".join(here)] = source


def _read_unlimited(layer: dict[str, Any]) -> None:
    """TOML has no null: the command line's word for "no limit" serves."""
    limits = layer.get("limits")
    if isinstance(limits, dict):
        layer["limits"] = {key: None if value == "unlimited" else value for key, value in limits.items()}


def _check(layer: dict[str, Any], source: str) -> None:
    """Validate one layer by itself, so that the error names where the value came from."""
    try:
        msgspec.convert(layer, Config)
    except msgspec.ValidationError as error:
        text = str(error)
        match = re.search(r" - at `\$\.?(.*?)`$", text)
        key = match.group(1) if match else ""
        unknown = re.search(r"unknown field `(.*?)`", text)
        if unknown:
            name = f"{key}.{unknown.group(1)}".strip(".")
            raise StartError(f"{source}: there is no key {name} (docs/configuration.md lists them all)") from error
        missing = re.search(r"missing required field `(.*?)`", text)
        if missing:
            raise StartError(f"{source}: {key} has no {missing.group(1)}, and it needs one") from error
        raise StartError(f"{source}: {key} = {_value_at(layer, key)!r}: {_allowed(key)}") from error


def _value_at(layer: Any, key: str) -> Any:
    for part in re.findall(r"[^.\[\]]+", key):
        try:
            layer = layer[int(part)] if isinstance(layer, list) else layer[part]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return layer


def _allowed(key: str) -> str:
    """What the field at the dotted `key` may hold, in words for people."""
    section = {entry.name: entry.type for entry in msgspec.structs.fields(Config)}.get(re.split(r"[.\[]", key)[0])
    if section is None:
        return "is not what belongs here"
    struct, many = _section_type(section)
    field = {entry.name: entry.type for entry in msgspec.structs.fields(struct)}.get(key.rpartition(".")[2])
    if field is None:
        return "must be a list of tables" if many else "must be a table"
    return f"must be {_described(field)}"


def _described(kind: Any) -> str:
    options = [entry for entry in get_args(kind) if entry is not type(None)]
    if type(None) in get_args(kind):
        return _described(options[0]) + ("" if options[0] is bool else ', or "unlimited"')
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return "a list of texts"
    bounds = ""
    if get_origin(kind) is Annotated:
        meta = get_args(kind)[1]
        if meta.pattern is not None:
            return "1 to 64 letters, digits, '.', '_' or '-'"
        lowest, highest = meta.ge if meta.ge is not None else meta.gt, meta.le
        above = "above" if meta.gt is not None else "of at least"
        bounds = f" {above} {lowest}" if lowest is not None else ""
        bounds += f"{' and' if bounds else ''} at most {highest}" if highest is not None else ""
        kind = get_args(kind)[0]
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind] + bounds


def _check_whole(config: Config, origin: dict[str, str]) -> None:
    """What no single field can tell."""

    def wrong(key: str, value: Any, why: str) -> StartError:
        return StartError(f"{origin.get(key, 'the defaults')}: {key} = {value!r}: {why}")

    for index, upstream in enumerate(config.upstreams):
        problem = url_problem(upstream.url)
        if problem:
            raise StartError(
                f"{origin.get('upstreams', 'the configuration')}: upstreams[{index}].url = {upstream.url!r}: {problem}"
            )
        if upstream.proxy:
            problem = url_problem(upstream.proxy)
            if not problem and not upstream.proxy.startswith("http://"):
                problem = "must be an http:// address"
            if not problem and not upstream.url.startswith("https://"):
                problem = "is for https:// upstreams only"
            if problem:
                raise wrong(f"upstreams[{index}].proxy", upstream.proxy, problem)
        if upstream.authority:
            try:
                ssl.create_default_context(cafile=upstream.authority)
            except OSError as error:  # ssl.SSLError is one
                why = getattr(error, "reason", None) or error.strerror or str(error)
                raise wrong("upstreams", upstream.authority, f"cannot be used as an authority: {why}") from error
    aliases = [alias.name for alias in config.aliases]
    for alias in config.aliases:
        if aliases.count(alias.name) > 1:
            raise wrong("aliases", alias.name, "two aliases have this name; names must differ")
        if not alias.models:
            raise wrong("aliases", alias.name, "names no model")
        for model in alias.models:
            if model in aliases and model != alias.name:
                raise wrong("aliases", alias.name, f"stands for the alias {model!r}; name a model")
    for key, host in (
        ("server.host", config.server.host),
        *((f"listen[{i}].host", entry.host) for i, entry in enumerate(config.listen)),
    ):
        if not host.strip():
            raise wrong(key, host, "must be an address of this machine; 0.0.0.0 listens on all of them")
    names = [upstream.name for upstream in config.upstreams]
    for name in names:
        if names.count(name) > 1:
            raise wrong("upstreams", name, "two upstreams have this name; names must differ")
    for key, ranges in (("server.trusted_proxies", config.server.trusted_proxies),):
        for text in ranges:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError as error:
                raise wrong(key, text, "must be an address or a range such as 10.0.0.0/8") from error
    for key, one, other in (
        ("server.certificate", config.server.certificate, config.server.key),
        *((f"listen[{i}].certificate", entry.certificate, entry.key) for i, entry in enumerate(config.listen)),
    ):
        if bool(one) != bool(other):
            raise wrong(key, one or None, "certificate and key go together: give both or neither")
        for path in (one, other):
            if path and not Path(path).is_file():
                raise wrong(key, path, "there is no such file")
    if config.queue.per_user > config.queue.size and "queue.per_user" in origin:
        raise wrong("queue.per_user", config.queue.per_user, f"must not exceed queue.size ({config.queue.size})")


def url_problem(url: str) -> str:
    """Why `url` cannot be an upstream's address; empty if it can."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        return "must be an address such as http://127.0.0.1:11434"
    if parts.username or parts.password or parts.query or parts.fragment:
        return "must hold neither credentials nor a query"
    return ""


# Names that are of a local network by themselves (RFC 6762, 8375, and what is common).
_LOCAL_NAMES = ("local", "localhost", "lan", "internal", "intranet", "home", "corp", "private", "localdomain", "arpa")


def is_outside(host: str) -> bool:
    """Whether `host` looks as if it were outside of the LAN: a public address, or a full name of no local kind.

    A guess on the safe side, made without asking anybody; `upstreams[].cloud` says otherwise.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.rstrip(".").casefold()
        return "." in name and name.rpartition(".")[2] not in _LOCAL_NAMES
    return address.is_global


def _ollama_url(text: str) -> str:
    """`OLLAMA_HOST`-like spellings made a URL: a bare host:port gets its scheme, a bare host Ollama's port."""
    text = text.strip().rstrip("/")
    if "://" not in text:
        text = f"http://{text}"
        if urlsplit(text).port is None:
            text += ":11434"
    return text


def _words(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return " | ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return "list"
    args = [entry for entry in get_args(kind) if entry is not type(None)]
    if args:
        return f"{_words(args[0])} or unset"
    return {int: "integer", float: "seconds", str: "text", bool: "boolean"}.get(kind, str(kind))
