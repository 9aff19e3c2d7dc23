"""What the gate of `showcase.py` has on record: models, limits, usage, audit, jobs; its clock and its curves."""

from __future__ import annotations

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
    ModelRow,
    TriedLimit,
    TriedUser,
    Usage,
    UsageBucket,
    UsageRow,
)

NOW = times.from_iso("2026-03-14T14:02:31Z")
LLAMA, QWEN, CODER, EMBED = "llama3.3:70b", "qwen3:4b", "qwen2.5-coder:32b", "nomic-embed-text"


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
            modified=ago(86400 * 20),
            **({"loaded": False, "default": False} | given),
        )

    return [
        row(LLAMA, "gpu1", 42.5, "llama", "70.6B", "Q4_K_M", loaded=True, vram=40_100_000_000, expires=ago(-240)),
        row(
            QWEN,
            "gpu1",
            2.6,
            "qwen3",
            "4.0B",
            "Q4_K_M",
            loaded=True,
            default=True,
            vram=4_200_000_000,
            expires=ago(-290),
        ),
        row(EMBED, "gpu1", 0.27, "nomic-bert", "137M", "F16"),
        row("gemma3:27b", "gpu1", 17.4, "gemma3", "27.4B", "Q4_K_M"),
        row(CODER, "gpu2", 19.9, "qwen2", "32.8B", "Q4_K_M", loaded=True, vram=21_800_000_000),
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
        LimitRow(target="key:k_90417bfe", requests_per_hour=300),
        LimitRow(target=f"model:{LLAMA}", concurrency=4, tokens_per_minute=20_000),
        LimitRow(target="address:192.0.2.0/24", requests_per_minute=600),
    ]
    uses = [
        use("user:ci-runner@example.org", "requests_per_minute", 10, 10, 12),
        use(f"model:{LLAMA}", "concurrency", 4, 4, None),
        use(f"model:{LLAMA}", "tokens_per_minute", 14_210, 20_000, 9),
        use("user:priya.ramanathan@physics.example.org", "tokens_per_day", 6_812_004, 10_000_000, 3600 * 5),
        use("user:ana.lopez@example.org", "concurrency", 2, 2, None),
        use("user:ana.lopez@example.org", "requests_per_minute", 8, 60, 41),
        use("user:ana.lopez@example.org", "tokens_per_day", 240_112, 2_000_000, 7200),
        use("user:joe@example.org", "requests_per_day", 1204, 5000, 1800),
        use("key:k_90417bfe", "requests_per_hour", 61, 300, 300),
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
        "key": {"k_e1f2a3b4": 6.3, "k_55e0aa19": 4.1, "k_8f3a61c0": 2.7, "": 1.1},
        "client": {"cluster": 6.3, "ci": 4.1, "laptop": 2.7, "": 2.0},
    }[question["by"]]
    rows = [_usage_row(UsageRow, name, weight) for name, weight in weights.items()]
    if question["by"] == "user":
        rows[1] = _usage_row(UsageRow, "ci-runner@example.org", 4.1, refusals=212)
    series = [_usage_row(UsageBucket, "", max(0.05, wave(n, 0.6, 0.6)), start=ago(86400 - 3600 * n)) for n in range(24)]
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


_ERRORS = {"refused": "requests_per_minute: 3 times", "upstream_error": "the upstream gpu1 broke off"}
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
    people = (LLAMA, "ana.lopez@example.org"), (CODER, "ci-runner@example.org"), (QWEN, "yuki.小林@example.org")
    for number in range(60):
        state, prompt = _PROMPTS[number % len(_PROMPTS)]
        model, user = people[number % 3]
        since = 20 + 97 * number
        refused = state == "refused"
        rows.append(
            AuditRow(
                log_id=48_210 - 2 * number,
                request_id="" if refused else f"{0x51D0C2EE + number * 0x10203:08x}-0000-4000-8000-{number:012x}",
                timestamp=ago(since),
                user=user,
                key="k_8f3a61c0",
                client_label=("laptop", "ci", "ノート")[number % 3],
                address=f"192.0.2.{7 + number}",
                route="/api/chat",
                model=model,
                upstream="gpu1",
                state=state,
                error="requests_per_minute: 3 times"
                if refused
                else "the upstream gpu1 broke off"
                if state == "upstream_error"
                else None,
                tokens_in=None if refused else 210 + 13 * number,
                tokens_out=None if refused else 1830 - 21 * number,
                received=ago(since),
                admitted=ago(since),
                seated=ago(since - 0.1),
                first_byte=ago(since - 0.6),
                ended=ago(since - 9.5 - number),
                prompt=prompt,
            )
        )
    return rows


def exchange() -> AuditExchange:
    row = audit()[0]
    return AuditExchange(
        **{name: getattr(row, name) for name in row.__struct_fields__ if name != "prompt"},
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
            ChainLink(48_210, "opened", ago(20), "ab" * 32, "4c" * 32),
            ChainLink(48_213, "closed", ago(10), "9e" * 32, "d7" * 32),
        ],
        seal=ChainSeal(48_230, "11" * 32, ago(4), "chk-2026-03"),
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
            "until:2026-01-01T00:00:00Z",
            actor="gatelodged",
            result="bodies of 1204 exchanges erased",
        ),
        job(
            5,
            "export",
            "done",
            "user:old.student@example.org",
            path=f"{folder}/old.student-5.csv",
            bytes=4_120_338,
            sha256="e3" * 32,
            records=812,
            result="812 exchanges, verified",
        ),
        job(6, "export", "failed", "state:ok", error="no space left on the disk"),
        job(
            7,
            "verify",
            "running",
            "everybody",
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
        job(8, "export", "queued", "user:ana.lopez@example.org since:2026-03-01", started=None, ended=None),
    ]
