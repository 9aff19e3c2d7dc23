"""Ollama on both sides: streams go through as they are, unstreamed answers are assembled as Ollama does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import UpstreamFailed
from daemon.dialects.asks import Ask, read_chat, read_embed, read_embeddings, read_generate
from daemon.dialects.pairs import translator_for
from daemon.dialects.translator import (
    JSON,
    MAX_WHOLE,
    NDJSON,
    Translator,
    UpstreamGarbled,
    UpstreamSaid,
    UpstreamTruncated,
    in_stream_error,
)
from daemon.exchange import Usage
from tests.rigs.feeding import SetClock, carried, cuts

CAPTURES = Path(__file__).parent / "captures"
HELLO = [{"role": "user", "content": "hello"}]


def chat(stream: bool = True, **fields: Any) -> Ask:
    return read_chat(json.dumps({"model": "m", "messages": HELLO, "stream": stream, **fields}).encode())


def generate(stream: bool = True, **fields: Any) -> Ask:
    return read_generate(json.dumps({"model": "m", "prompt": "hello", "stream": stream, **fields}).encode())


def over_ollama(ask: Ask) -> Translator:
    return translator_for(ask, "ollama", SetClock())


def lines(*objects: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each, separators=(",", ":"), ensure_ascii=False).encode() + b"\n" for each in objects)


def piece(content: str, **more: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "created_at": "t1",
        "message": {"role": "assistant", "content": content},
        "done": False,
    } | more


def done(**more: Any) -> dict[str, Any]:
    last = {"model": "m", "created_at": "t2", "message": {"role": "assistant", "content": ""}, "done": True}
    return last | {"done_reason": "stop", "total_duration": 9, "prompt_eval_count": 3, "eval_count": 2} | more


# --- what goes upstream ---


def test_the_upstream_is_asked_for_a_stream_and_by_its_own_name_of_the_model():
    """Even for a client who wants one answer: only a stream stops when its reader leaves. All else passes through."""
    ask = chat(stream=False, novel={"x": 1}, options={"temperature": 0.5}, big=2**70)
    document = json.loads(over_ollama(ask).body("m:latest"))
    assert document == {**ask.document, "model": "m:latest", "stream": True}
    assert document["big"] == 2**70


def test_the_routes_are_ollamas_own():
    """Aliases never reach the upstream; embeddings have no stream to ask for."""
    embed = read_embed(b'{"model":"m","input":"x"}')
    assert [over_ollama(ask).upstream_path for ask in (chat(), generate(), embed)] == [
        "/api/chat", "/api/generate", "/api/embed"
    ]  # fmt: skip
    assert json.loads(over_ollama(embed).body("m")) == {"model": "m", "input": "x"}
    assert {over_ollama(ask).upstream_method for ask in (chat(), embed)} == {"POST"}


# --- streams ---


@pytest.mark.parametrize(("name", "ask"), [("chat", chat()), ("generate", generate())])
def test_a_real_stream_goes_through_untouched_and_its_end_leaves_last(name: str, ask: Ask):
    """Byte for byte what Ollama 0.9.3 sent, however it arrived; the line with `done` only at the very end."""
    raw = (CAPTURES / f"ollama_{name}.ndjson").read_bytes()
    *pieces, last = raw.splitlines(keepends=True)
    for chunks in cuts(raw):
        translator = over_ollama(ask)
        before, end = carried(translator, chunks)
        assert (before, end) == (b"".join(pieces), last)
        assert translator.finished
        counts = json.loads(last)
        assert translator.usage == Usage(counts["prompt_eval_count"], counts["eval_count"])
        assert translator.pieces == len(pieces)
        assert translator.content_type == NDJSON


def test_whole_lines_leave_with_the_bytes_that_complete_them():
    """No line waits for the next one, and none leaves in part: an error may follow it on a line of its own."""
    translator = over_ollama(chat())
    first, second = lines(piece("a")), lines(piece("b"))
    assert translator.feed(first) == first
    assert translator.feed(second[:10]) == b""
    assert translator.feed(second[10:] + first[:5]) == second
    assert translator.feed(first[5:] + second) == first + second


def test_a_done_deeper_inside_or_in_words_is_not_the_end():
    """Only the top level's own `done` counts, wherever it stands in its line."""
    stream = lines(
        piece('{"done":true}'),
        piece("x", message={"role": "assistant", "content": "", "done": True}),
        piece("y", logprobs=[{"token": "y", "logprob": -0.1}]),
        piece("z", tail={"done": False}),
    )
    end = lines({"done": True, **done()})
    for chunks in cuts(stream + end):
        assert carried(over_ollama(chat()), chunks) == (stream, end)


@pytest.mark.parametrize("stream", [True, False])
def test_a_missing_end_is_a_failure(stream: bool):
    """A stopped Ollama cuts its answer off with a clean end of the connection: never a whole answer."""
    raw = (CAPTURES / "ollama_chat.ndjson").read_bytes()
    for cut in (0, 1, 200, raw.rindex(b'{"model"'), len(raw) - 2):
        translator = over_ollama(chat(stream=stream))
        with pytest.raises(UpstreamTruncated):
            carried(translator, [raw[:cut]])
        assert not translator.finished


@pytest.mark.parametrize("stream", [True, False])
def test_a_last_line_without_its_line_feed_is_an_end(stream: bool):
    """Ollama itself answers requests to load so."""
    raw = lines(piece("a"), done())
    before, end = carried(over_ollama(chat(stream=stream)), [raw[:-1]])
    assert before + end == (raw[:-1] if stream else end)
    assert json.loads(end.splitlines()[-1])["done"] is True


@pytest.mark.parametrize("end", [b"\n", b"", b"\n\n"])
@pytest.mark.parametrize("stream", [True, False])
def test_an_error_in_the_stream_is_raised_after_what_was_good(stream: bool, end: bytes):
    """The words are Ollama's, and the lines before the error are not lost, in whatever cut it came."""
    good = lines(piece("a"), piece("b"))
    for chunks in cuts(good + b'{"error":"the model runner stopped","status":400}' + end):
        translator, sent = over_ollama(chat(stream=stream)), b""
        with pytest.raises(UpstreamSaid, match="the model runner stopped") as caught:
            for chunk in chunks:
                sent += translator.feed(chunk)
            translator.terminator()
        assert sent == (good if stream else b"")
        assert caught.value.status == 400


def test_nothing_is_sent_after_an_error():
    """Lines that follow one, in its piece or a later one, are not passed off as an answer."""
    error, more = b'{"error":"broke"}\n', lines(piece("more"))
    for chunks in ([error + more], [more + error, more], [more + error + more, more]):
        translator, sent = over_ollama(chat()), b""
        with pytest.raises(UpstreamSaid, match="broke"):
            for chunk in chunks:
                sent += translator.feed(chunk)
        assert sent == (more if len(chunks) > 1 else b"")


def test_a_real_error_of_ollama_comes_before_any_byte():
    """Ollama answers a wrong format with 200 and an error as its only line."""
    translator = over_ollama(chat())
    with pytest.raises(UpstreamSaid, match="invalid format") as caught:
        translator.feed((CAPTURES / "ollama_error.ndjson").read_bytes())
    assert caught.value.status == 502


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "junk", [b"<html>\n", b"{}x\n", b"[1]\n", b'"x"\n', b'{"done":"yes"}\n', b'{"a":' * 2000 + b"\n"]
)
def test_garbage_is_an_error(stream: bool, junk: bytes):
    """What Ollama never says is not passed off as its answer."""
    translator = over_ollama(chat(stream=stream))
    translator.feed(lines(piece("a")))
    with pytest.raises(UpstreamGarbled):
        translator.feed(junk)


@pytest.mark.parametrize("done", ["true", "false"])
def test_garbage_where_nobody_looks_is_an_error_and_what_was_said_is_on_record(done: str):
    """Fields that say nothing to us are skipped: nonsense in one of them shows only when the answer is put together."""
    translator = over_ollama(chat(stream=False))
    translator.feed(lines(piece("a word")) + b'{"nov\xffel":1,"message":{"content":"!"},"done":%b}\n' % done.encode())
    assert json.loads(translator.so_far())["message"]["content"] == "a word!"
    with pytest.raises(UpstreamFailed):
        translator.terminator()


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_does_not_go_on_after_its_end(stream: bool):
    """Whatever follows the last line belongs to no answer of ours."""
    for more in (lines(piece("again")), lines(done()), b'{"error":"late"}\n'):
        translator = over_ollama(chat(stream=stream))
        with pytest.raises(UpstreamGarbled, match="goes on after its end"):
            carried(translator, [lines(piece("a"), done()), more])


def test_an_endless_line_or_answer_is_an_error(monkeypatch: pytest.MonkeyPatch):
    """Memory stays bounded, for streams and for what is gathered."""
    monkeypatch.setattr("daemon.dialects.ollama.MAX_WHOLE", 1000)
    whole = over_ollama(chat(stream=False))
    vectors = over_ollama(read_embed(b'{"model":"m","input":"x"}'))
    for translator, data in ((whole, lines(piece("x" * 200))), (vectors, b"x" * 200)):
        with pytest.raises(UpstreamGarbled, match="longer than"):
            for _ in range(10):
                translator.feed(data)
    endless = over_ollama(chat())
    with pytest.raises(UpstreamGarbled, match="a line of more than"):
        for _ in range(20):
            endless.feed(b"x" * (1 << 20))
    assert MAX_WHOLE == 64 << 20


# --- whole answers ---


@pytest.mark.parametrize("name", ["chat", "generate"])
def test_a_whole_answer_is_what_ollama_itself_would_have_given(name: str):
    """The real stream, assembled, is the real unstreamed answer to the same question: same fields, same order."""
    ask = chat(stream=False) if name == "chat" else generate(stream=False)
    raw = (CAPTURES / f"ollama_{name}.ndjson").read_bytes()
    real = json.loads((CAPTURES / f"ollama_{name}.json").read_bytes())
    for chunks in cuts(raw):
        translator = over_ollama(ask)
        before, end = carried(translator, chunks)
        ours = json.loads(end)
        assert before == b""
        assert list(ours) == list(real)
        assert {key: ours[key] for key in real if key not in TIMES} == {
            key: real[key] for key in real if key not in TIMES
        }
        last = json.loads(raw.splitlines()[-1])
        assert {key: ours[key] for key in TIMES} == {key: last[key] for key in TIMES}
        assert translator.content_type == JSON


TIMES = ("created_at", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def test_thinking_tools_and_logprobs_are_gathered_in_their_places():
    """As Ollama's chat handler does: contents joined, calls and log probabilities appended, the last line's fields."""
    call = {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"a": "<é>"}}}
    stream = lines(
        piece("", message={"role": "assistant", "content": "", "thinking": "h"}),
        piece(
            "", message={"role": "assistant", "content": "", "thinking": "m"}, logprobs=[{"token": "m", "logprob": -1}]
        ),
        piece("a", logprobs=[{"token": "a", "logprob": -2}]),
        piece("", message={"role": "assistant", "content": "", "tool_calls": [call]}),
        piece("", message={"role": "assistant", "content": "", "tool_calls": [call]}),
        done(message={"role": "assistant", "content": "z"}, novel=1),
    )
    _, end = carried(over_ollama(chat(stream=False)), [stream])
    message = {"role": "assistant", "content": "az", "thinking": "hm", "tool_calls": [call, call]}
    expected = {
        "model": "m", "created_at": "t2", "message": message, "done": True, "done_reason": "stop",
        "logprobs": [{"token": "m", "logprob": -1}, {"token": "a", "logprob": -2}],
        "total_duration": 9, "prompt_eval_count": 3, "eval_count": 2, "novel": 1,
    }  # fmt: skip
    assert list(json.loads(end).items()) == list(expected.items())
    assert list(json.loads(end)["message"]) == list(message)


def test_a_generated_answer_has_its_thinking_after_its_response():
    """And its log probabilities at the end, as Ollama writes them."""
    head = {"model": "m", "created_at": "t"}
    stream = lines(
        {**head, "response": "", "thinking": "hm", "done": False},
        {**head, "response": "a", "done": False, "logprobs": [{"token": "a", "logprob": -1}]},
        {**head, "response": "b", "done": True, "done_reason": "stop", "context": [1, 2], "total_duration": 5},
    )
    _, end = carried(over_ollama(generate(stream=False)), [stream])
    assert list(json.loads(end).items()) == [
        ("model", "m"), ("created_at", "t"), ("response", "ab"), ("thinking", "hm"), ("done", True),
        ("done_reason", "stop"), ("context", [1, 2]), ("total_duration", 5),
        ("logprobs", [{"token": "a", "logprob": -1}]),
    ]  # fmt: skip


def test_what_was_gathered_of_an_answer_cut_off_is_kept_for_the_record():
    """An unstreamed answer that is interrupted has been generated in part; a streamed one was sent as it came."""
    whole, streamed = over_ollama(chat(stream=False)), over_ollama(chat())
    assert whole.so_far() == b""
    for translator in (whole, streamed):
        translator.feed(lines(piece("a"), piece("b")))
        assert translator.pieces == 2
    assert json.loads(whole.so_far()) == piece("ab")
    assert streamed.so_far() == b""


# --- requests that infer nothing, and other single answers ---


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_to_load_is_answered_with_one_object(stream: bool):
    """Ollama's real answer to an empty generate goes through, as JSON, streamed or not."""
    raw = (CAPTURES / "ollama_load.json").read_bytes()
    ask = read_generate(json.dumps({"model": "m", "stream": stream}).encode())
    for chunks in cuts(raw):
        translator = over_ollama(ask)
        before, end = carried(translator, chunks)
        assert (before, json.loads(end)) == (b"", json.loads(raw))
        assert (translator.content_type, translator.usage) == (JSON, Usage(0, 0))


@pytest.mark.parametrize("stream", [True, False])
def test_a_rendered_template_is_an_answer(stream: bool):
    """`_debug_render_only` is answered by one object that is never done."""
    raw = json.dumps({"model": "m", "response": "", "done": False, "_debug_info": {"rendered_template": "x"}}).encode()
    before, end = carried(over_ollama(generate(stream=stream, _debug_render_only=True)), [raw])
    assert (before, json.loads(end)) == (b"", json.loads(raw))


def test_embeddings_go_through_as_they_are():
    """Byte for byte, and only as a whole; the count is told where Ollama tells it."""
    raw = (CAPTURES / "ollama_embed.json").read_bytes()
    translator = over_ollama(read_embed(b'{"model":"m","input":["hello","world"]}'))
    assert carried(translator, [raw[:100], raw[100:]]) == (b"", raw)
    assert (translator.usage, translator.content_type) == (Usage(2, 0), JSON)
    older = over_ollama(read_embeddings(b'{"model":"m","prompt":"x"}'))
    assert carried(older, [b'{"embedding":[1,2]}']) == (b"", b'{"embedding":[1,2]}')
    assert older.usage == Usage(None, None)


@pytest.mark.parametrize("raw", [b"", b'{"embeddings":[[1', b"{}", b"[]", b"nonsense", b'{"embeddings":null}'])
def test_embeddings_that_are_none_are_an_error(raw: bytes):
    """Nothing that is not an embedding is handed out as one."""
    with pytest.raises(UpstreamGarbled):
        carried(over_ollama(read_embed(b'{"model":"m","input":"x"}')), [raw])
    with pytest.raises(UpstreamSaid, match="no such thing"):
        carried(over_ollama(read_embed(b'{"model":"m","input":"x"}')), [b'{"error":"no such thing"}'])


# --- errors ---


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, b'{"error":"model \'x\' not found"}', (404, "model 'x' not found")),
        (400, b'{"error":"invalid input type"}', (400, "invalid input type")),
        (500, b'{"error":"out of memory"}', (502, "out of memory")),
        (503, b'{"error":"server busy"}', (503, "server busy")),
        (429, b'{"error":"slow down"}', (503, "slow down")),
        (403, b"", (502, "the upstream answered 403 and gave no reason")),
        (401, b'{"error":"unauthorized"}', (502, "unauthorized")),
        (301, b"", (502, "the upstream answered 301 and gave no reason")),
        (502, b"<html>", (502, "the upstream answered 502 and gave no reason")),
        (400, b'{"error":{"message":"too long","type":"x"}}', (400, "too long")),
        (400, b'{"error":{"code":1}}', (400, "the upstream answered 400 and gave no reason")),
        (500, b'{"error":"' + b"x" * 9000 + b'"}', (502, "x" * 2000)),
    ],
)
def test_an_error_answer_keeps_its_words_and_gets_our_status(status: int, body: bytes, expected: tuple[int, str]):
    """What the client can mend keeps its status; what lies between us and the upstream is our 502 or 503."""
    assert over_ollama(chat()).error_status(status, body) == expected


def test_an_error_in_the_stream_is_a_line_of_its_own():
    """As Ollama ends a stream that failed; no client takes it for `done`."""
    for shape in ("ollama.chat", "ollama.generate", "ollama.embed", "ollama.embeddings"):
        assert in_stream_error(shape, 'it "broke"') == b'{"error":"it \\"broke\\""}\n'
