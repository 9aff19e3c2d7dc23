"""What the gate of `showcase.py` has on record: models, limits, usage, audit, jobs; its clock and its curves."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import msgspec

from common import times
from common.protocol import (
    AuditExchange,
    AuditRow,
    ChainLink,
    ChainPosition,
    ChainSeal,
    JobRow,
    LimitRow,
    LimitsTried,
    LimitUse,
    LimitValues,
    ModelAccess,
    ModelRow,
    TriedLimit,
    TriedUser,
    Usage,
    UsageBucket,
    UsageRow,
)

NOW = times.from_iso("2026-03-14T14:02:31Z")
LLAMA, QWEN, CODER, EMBED = "llama3.3:70b", "qwen3:4b", "qwen2.5-coder:32b", "nomic-embed-text"


# A key of each, as the daemon makes their ids (`daemon/access/keys.py`), and where it is used from.
KEYS = {
    "laptop": "3fKd81QxZa",
    "editor": "b0TqW7e2Lm",
    "notebook": "C9d4410pRs",
    "ci": "55eYHa19Kd",
    "workflows": "90Vb17BfEx",
    "ノート": "7Ga1b2cT3w",
    "cluster": "e1MfJ2a3B4",
    "prometheus": "Pr0m8uJx2c",
}
FROM = {
    "laptop": "192.0.2.7",
    "editor": "192.0.2.42",
    "cluster": "192.0.2.29",
    "ci": "192.0.2.10",
    "ノート": "192.0.2.62",
    "workflows": "192.0.2.73",
}


def request_id(number: int) -> str:
    """A request id as `daemon/exchange.py` makes them, always the same."""
    value = int.from_bytes(hashlib.sha256(b"request %d" % number).digest()[:16], "big")
    return "".join("0123456789abcdefghjkmnpqrstvwxyz"[value >> shift & 31] for shift in range(125, -1, -5))


def digest(words: str) -> str:
    """A SHA-256, always the same."""
    return hashlib.sha256(words.encode()).hexdigest()


def ago(seconds: float) -> str:
    """A moment of the protocol."""
    return times.iso(NOW - round(seconds * 1e6))


def wave(n: int, middle: float, height: float) -> float:
    """Point `n` of a curve that looks like traffic."""
    return middle + height * (math.sin(n / 9) * 0.6 + math.sin(n / 2.3) * 0.3)


def models() -> list[ModelRow]:
    def row(name: str, upstream: str, gigabytes: float, family: str, size: str, quant: str, **given: Any) -> ModelRow:
        return ModelRow(
            name=name,
            upstream=upstream,
            size=round(gigabytes * 1e9),
            family=family,
            parameters=size,
            quantization=quant,
            **({"loaded": False, "default": False, "modified": ago(86400 * 20)} | given),
        )

    def memory(size: int) -> dict[str, Any]:
        return {"memory": size, "vram": size, "context": 8192}

    return [
        row(LLAMA, "gpu1", 42.5, "llama", "70.6B", "Q4_K_M", loaded=True, expires=ago(-240), **memory(40_100_000_000)),
        row(
            QWEN,
            "gpu1",
            2.6,
            "qwen3",
            "4.0B",
            "Q4_K_M",
            loaded=True,
            default=True,
            expires=ago(-290),
            **memory(4_200_000_000),
        ),
        row(EMBED, "gpu1", 0.27, "nomic-bert", "137M", "F16"),
        row("gemma3:27b", "gpu1", 17.4, "gemma3", "27.4B", "Q4_K_M"),
        # A llama.cpp tells less of its model, and nothing of the GPU.
        row(CODER, "gpu2", 19.9, "", "32.8B", "Q4_K_M", loaded=True, context=32_768, memory=19_900_000_000, vram=0),
    ]


def access() -> list[ModelAccess]:
    """Who may use a model: who has a login, and the keys for all models."""

    def way(user: str, label: str = "") -> ModelAccess:
        return ModelAccess(user=user, by="key" if label else "login", key=KEYS.get(label), label=label, pattern=None)

    return [
        way("alice@example.org"),
        way("ana.lopez@example.org"),
        way("ana.lopez@example.org", "laptop"),
        way("ci-runner@example.org", "ci"),
        way("joe@example.org"),
        way("joe@example.org", "editor"),
        way("max@example.org"),
        way("n8n@example.org", "workflows"),
        way("priya.ramanathan@physics.example.org"),
        way("priya.ramanathan@physics.example.org", "cluster"),
        way("yuki.小林@example.org"),
        way("yuki.小林@example.org", "ノート"),
    ]


def limits() -> tuple[list[LimitRow], list[LimitUse]]:
    default = LimitValues(requests_per_minute=60, requests_per_day=5000, tokens_per_day=2_000_000, concurrency=2)

    def use(target: str, limit: str, used: int, most: int, frees: float | None) -> LimitUse:
        return LimitUse(target, limit, used, most, None if frees is None else ago(-frees))

    rows = [
        LimitRow(target="default", **_values(default), effective=default),
        LimitRow(
            target="user:ci-runner@example.org",
            requests_per_minute=10,
            concurrency="unlimited",
            effective=msgspec.structs.replace(default, requests_per_minute=10, concurrency="unlimited"),
        ),
        LimitRow(
            target="user:priya.ramanathan@physics.example.org",
            tokens_per_day=10_000_000,
            effective=msgspec.structs.replace(default, tokens_per_day=10_000_000),
        ),
        LimitRow(target=f"key:{KEYS['workflows']}", requests_per_hour=300),
        LimitRow(target=f"model:{LLAMA}", concurrency=3, tokens_per_minute=20_000),
        LimitRow(target="address:192.0.2.0/24", requests_per_minute=600),
    ]
    uses = [
        use("user:ci-runner@example.org", "requests_per_minute", 10, 10, 12),
        use(f"model:{LLAMA}", "concurrency", 3, 3, None),
        use(f"model:{LLAMA}", "tokens_per_minute", 14_210, 20_000, 9),
        use("user:priya.ramanathan@physics.example.org", "tokens_per_day", 6_812_004, 10_000_000, 3600 * 5),
        use("user:ana.lopez@example.org", "concurrency", 1, 2, None),
        use("user:ana.lopez@example.org", "requests_per_minute", 8, 60, 41),
        use("user:ana.lopez@example.org", "tokens_per_day", 240_112, 2_000_000, 7200),
        use("user:joe@example.org", "requests_per_day", 1204, 5000, 1800),
        use(f"key:{KEYS['workflows']}", "requests_per_hour", 61, 300, 300),
        use("address:192.0.2.0/24", "requests_per_minute", 118, 600, 6),
    ]
    return rows, uses


def _values(values: LimitValues) -> dict[str, Any]:
    return {name: getattr(values, name) for name in values.__struct_fields__}


def tried() -> LimitsTried:
    return LimitsTried(
        target="user:ana.lopez@example.org",
        since=ago(86400),
        until=ago(0),
        requests=1204,
        refused=37,
        refused_now=0,
        refused_then=3,
        users=[TriedUser("ana.lopez@example.org", 212, 37, 0)],
        limits=[TriedLimit("user:ana.lopez@example.org", "requests_per_minute", 37)],
        complete=True,
        seconds=0.21,
    )


def _usage_row(kind: Any, name: str, weight: float, **given: Any) -> Any:
    figures: dict[str, Any] = {
        "name": name,
        "requests": round(400 * weight),
        "tokens_in": round(310_000 * weight),
        "tokens_out": round(190_000 * weight),
        "gpu_seconds": round(4100 * weight, 1),
        "ok": round(380 * weight),
        "errors": round(2 * weight),
        "departures": round(14 * weight),
        "cut": round(1 * weight),
        "refusals": 0,
    }
    return kind(**(figures | given))


_HOUR = 3_600_000_000


def usage(question: dict[str, Any]) -> Usage:
    weights = {
        "user": {
            "priya.ramanathan@physics.example.org": 6.3,
            "ci-runner@example.org": 4.1,
            "ana.lopez@example.org": 2.7,
            "joe@example.org": 1.2,
            "yuki.小林@example.org": 0.8,
            "n8n@example.org": 0.3,
        },
        "model": {LLAMA: 8.0, CODER: 4.4, QWEN: 2.8, EMBED: 0.2},
        "key": {KEYS["cluster"]: 6.3, KEYS["ci"]: 4.1, KEYS["laptop"]: 2.7, KEYS["editor"]: 1.2, "": 1.1},
        "client": {"cluster": 6.3, "ci": 4.1, "laptop": 2.7, "editor": 1.2, "": 1.1},
    }[question["by"]]
    refused = {"user": "ci-runner@example.org", "model": CODER, "key": KEYS["ci"], "client": "ci"}[question["by"]]
    rows = [
        _usage_row(UsageRow, name, weight, refusals=212 if name == refused else 0) for name, weight in weights.items()
    ]
    waves = [max(0.05, wave(n, 0.6, 0.6)) for n in range(25)]
    share = sum(weights.values()) / sum(waves)
    series = [
        _usage_row(
            UsageBucket,
            "",
            each * share,
            start=times.iso(NOW // _HOUR * _HOUR - (24 - n) * _HOUR),
            refusals={15: 120, 16: 71, 24: 21}.get(n, 0),
        )
        for n, each in enumerate(waves)
    ]
    return Usage(
        since=ago(86400),
        until=ago(0),
        by=question["by"],
        total=_usage_row(UsageRow, "", sum(weights.values()), refusals=212),
        rows=rows,
        others=None,
        bucket_seconds=3600,
        series=series,
    )


_ERRORS = {
    "refused": "requests_per_minute, 3 times",
    "upstream_error": "the upstream gpu1 broke off: it closed the connection in the middle of its answer",
    "cancelled_by_admin": "cancelled by an administrator",
}
_PROMPTS = (
    ("ok", "Summarise the attached minutes in five bullet points, then list who promised what."),
    ("ok", "def total(prices):  # why is this slow for a million rows?"),
    ("client_left", "Translate into Japanese: the meeting moves to Tuesday."),
    ("ok", "次の文章を要約してください。"),
    ("upstream_error", "Continue the story about the lighthouse keeper"),
    ("ok", "What is the heat capacity of argon at 87 K?"),
    ("refused", ""),
    ("ok", "Write a haiku 🌊 about the sea"),
    ("cancelled_by_admin", "Repeat the word poem for ever"),
    ("ok", "Review this diff for races"),
)


def audit() -> list[AuditRow]:
    rows = []
    people = (
        (LLAMA, "gpu1", "ana.lopez@example.org", "laptop"),
        (CODER, "gpu2", "ci-runner@example.org", "ci"),
        (QWEN, "gpu1", "yuki.小林@example.org", "ノート"),
    )
    for number in range(60):
        state, prompt = _PROMPTS[number % len(_PROMPTS)]
        model, upstream, user, label = people[number % 3]
        since, took = 20 + 97 * number, 9.5 + number
        given: dict[str, Any] = {
            "request_id": request_id(1000 + number),
            "route": "/api/chat",
            "upstream": upstream,
            "tokens_in": 210 + 13 * number,
            "tokens_out": 430 + 21 * number,
            "admitted": ago(since),
            "seated": ago(since - 0.1),
            "first_byte": ago(since - 0.6),
            "ended": ago(since - took),
        }
        if state == "refused":  # one record for all of a minute, which has no more than this
            given = dict.fromkeys(given) | {"request_id": "", "route": "", "upstream": ""}
        rows.append(
            AuditRow(
                log_id=48_210 - 2 * number,
                timestamp=ago(since),
                user=user,
                key=KEYS[label],
                client_label=label,
                address=FROM[label],
                model=model,
                state=state,
                error=_ERRORS.get(state, "").replace("gpu1", upstream) or None,
                received=ago(since),
                prompt=prompt,
                **given,
            )
        )
    return rows


def exchange() -> AuditExchange:
    row = audit()[0]
    return AuditExchange(
        **{name: getattr(row, name) for name in row.__struct_fields__ if name not in ("prompt", "erased")},
        prompt=row.prompt,
        response="- the budget is agreed\n- the lab moves in May\n\nAna promised the draft until Friday.",
        user_agent="ollama-python/0.6.0",
        model_asked=row.model,
        stream=True,
        bytes_out=256_118,
        messages={
            "messages": [
                {"role": "system", "content": "You are brief."},
                {"role": "user", "content": row.prompt + "\n\nMinutes of 13 March …"},
            ]
        },
        answer={"role": "assistant", "content": "- the budget is agreed …", "thinking": "Five bullets are asked for."},
        erased=False,
    )


def position() -> ChainPosition:
    return ChainPosition(
        log_id=48_210,
        request_id=audit()[0].request_id,
        links=[
            ChainLink(48_210, "opened", ago(20), digest("48209"), digest("48210")),
            ChainLink(48_213, "closed", ago(10.5), digest("48212"), digest("48213")),
        ],
        seal=ChainSeal(48_230, digest("48230"), ago(4), digest("key")[:16]),
        head_seq=48_236,
        checked=21,
    )


def jobs() -> list[JobRow]:
    def job(number: int, kind: Any, state: Any, target: str, **given: Any) -> JobRow:
        defaults: dict[str, Any] = {
            "actor": "alice",
            "format": "csv" if kind == "export" else None,
            "step": "",
            "done": 0,
            "total": None,
            "unit": "exchanges",
            "rate": None,
            "eta_seconds": None,
            "path": None,
            "bytes": None,
            "sha256": None,
            "records": None,
            "result": "",
            "error": None,
            "created": ago(3600 * (9 - number)),
            "started": ago(3600 * (9 - number) - 1),
            "ended": ago(3600 * (9 - number) - 40),
        }
        return JobRow(id=number, kind=kind, state=state, target=target, **(defaults | given))

    folder = "/var/lib/gatelodge/exports"
    return [
        job(
            4,
            "retention",
            "done",
            "until:2026-01-01T00:00:00.000000Z",
            actor="gatelodged",
            path=f"{folder}/00004-before-2026-01-01.jsonl",
            bytes=61_204_338,
            sha256=digest("job 4"),
            records=1204,
            result="1204 exchanges written and read back; 9873 parts of bodies erased, 6494 pages given back",
        ),
        job(
            5,
            "export",
            "done",
            "user:old.student@example.org",
            path=f"{folder}/00005-old.student@example.org-2026-03-14.csv",
            bytes=4_120_338,
            sha256=digest("job 5"),
            records=812,
            result="812 exchanges written and read back",
        ),
        job(
            6,
            "export",
            "failed",
            "state:ok",
            error=f"cannot write {folder}/00006-everybody-2026-03-14.csv: No space left on device",
        ),
        job(
            7,
            "verify",
            "running",
            "the journal",
            step="verifying",
            done=61_204,
            total=98_400,
            unit="records",
            rate=4100.0,
            eta_seconds=9.1,
            created=ago(16),
            started=ago(15),
            ended=None,
        ),
        job(
            8,
            "export",
            "queued",
            "user:ana.lopez@example.org since:2026-03-01T00:00:00.000000Z",
            started=None,
            ended=None,
        ),
    ]
