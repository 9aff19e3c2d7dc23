"""What an inference server says: the bodies of Ollama's, OpenAI's and Anthropic's routes, functions of the request.

Rule: pure shapes; when and how the bytes leave is `tests/rigs/scripted_upstream.py`'s business. Every usage figure
follows from the request (`tokens_of`), so that a test can tell what must arrive in the audit.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

CREATED = "2026-01-02T03:04:05.678901234Z"
CREATED_UNIX = 1767323045
INFERENCE = {
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
}
EMBEDDING = {"/api/embed", "/api/embeddings", "/v1/embeddings"}


def compact(value: Any) -> bytes:
    """JSON as Go and llama.cpp write it: no spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def words_of(count: int) -> list[str]:
    """`count` short words that can be told apart: "w0 ", "w1 ", ..."""
    return [f"w{number} " for number in range(count)]


def tokens_of(document: dict[str, Any]) -> int:
    """The tokens of a prompt, as these servers count them: one a word."""
    if "messages" in document:
        return sum(len(_text_of(message.get("content")).split()) for message in document["messages"] or [])
    prompt = document.get("prompt", document.get("input", ""))
    texts = prompt if isinstance(prompt, list) else [prompt]
    return sum(len(str(text).split()) for text in texts)


def _text_of(content: Any) -> str:
    if isinstance(content, list):  # Anthropic's blocks
        return " ".join(str(block.get("text", "")) for block in content)
    return str(content or "")


def is_streamed(path: str, document: dict[str, Any]) -> bool:
    """Whether the route answers this request as a stream: Ollama's by default, OpenAI's when asked."""
    if path in EMBEDDING or only_loads(path, document):
        return False
    stream = document.get("stream")
    return not path.startswith("/v1/") if stream is None else bool(stream)


def only_loads(path: str, document: dict[str, Any]) -> bool:
    """Whether nothing is asked: Ollama then loads the model, and answers one object whatever is said of streaming."""
    asked = {"/api/chat": "messages", "/api/generate": "prompt"}.get(path)
    return asked is not None and not document.get(asked)


def content_type(path: str, streamed: bool) -> str:
    """The content type of an answer of `path`."""
    if not streamed:
        return "application/json; charset=utf-8"
    return "text/event-stream" if path.startswith("/v1/") else "application/x-ndjson"


def pieces(path: str, document: dict[str, Any], words: list[str]) -> list[bytes]:
    """The whole answer of an inference route, in the pieces in which the server would write it.

    A streamed answer has a piece for each word and then the end (for OpenAI: finish, usage if asked, `[DONE]`).
    """
    if path in EMBEDDING:
        return [compact(_embedding(path, document))]
    if path == "/v1/messages":
        return _anthropic_pieces(document, words)
    if path.startswith("/v1/"):
        return _openai_pieces(path, document, words)
    return _ollama_pieces(path, document, words)


def _ollama_pieces(path: str, document: dict[str, Any], words: list[str]) -> list[bytes]:
    head = {"model": document.get("model", ""), "created_at": CREATED}

    def said(text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}} if path == "/api/chat" else {"response": text}

    end = {
        "done": True,
        "done_reason": "stop",
        "total_duration": 5_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": tokens_of(document),
        "prompt_eval_duration": 1_500_000,
        "eval_count": len(words),
        "eval_duration": 2_500_000,
    }
    if path == "/api/generate":
        end = {**end, "context": [1, 2, 3]}
    if only_loads(path, document):
        return [compact({**head, **said(""), "done": True, "done_reason": "load"})]
    if not is_streamed(path, document):
        return [compact({**head, **said("".join(words)), **end})]
    lines = [compact({**head, **said(word), "done": False}) + b"\n" for word in words]
    return [*lines, compact({**head, **said(""), **end}) + b"\n"]


def _openai_pieces(path: str, document: dict[str, Any], words: list[str]) -> list[bytes]:
    chat = path == "/v1/chat/completions"
    usage = {
        "prompt_tokens": tokens_of(document),
        "completion_tokens": len(words),
        "total_tokens": tokens_of(document) + len(words),
    }
    head = {"id": "chatcmpl-1" if chat else "cmpl-1", "created": CREATED_UNIX, "model": document.get("model", "")}
    if not is_streamed(path, document):
        text = "".join(words)
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice = {"index": 0, "finish_reason": "stop", **said}
        kind = "chat.completion" if chat else "text_completion"
        return [compact({**head, "object": kind, "choices": [choice], "usage": usage})]
    head["object"] = "chat.completion.chunk" if chat else "text_completion"

    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        said = {"delta": delta} if chat else {"text": delta.get("content", "")}
        return _event({**head, "choices": [{"index": 0, "finish_reason": finish, **said}]})

    events = [event({"content": word}) for word in words]
    if chat and events:
        events[0] = event({"role": "assistant", "content": None}) + events[0]
    events.append(event({}, "stop"))
    if (document.get("stream_options") or {}).get("include_usage"):
        events.append(_event({**head, "choices": [], "usage": usage}))
    return [*events, b"data: [DONE]\n\n"]


def _anthropic_pieces(document: dict[str, Any], words: list[str]) -> list[bytes]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": document.get("model", ""), "content": []}
    tokens = {"input_tokens": tokens_of(document), "cache_read_input_tokens": 0}
    if not is_streamed("/v1/messages", document):
        said = {"content": [{"type": "text", "text": "".join(words)}], "stop_reason": "end_turn"}
        return [compact({**message, **said, "usage": {**tokens, "output_tokens": len(words)}})]

    def event(kind: str, **fields: Any) -> bytes:
        return f"event: {kind}\n".encode() + _event({"type": kind, **fields})

    start = event("message_start", message={**message, "usage": {**tokens, "output_tokens": 1}})
    start += event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    deltas = [event("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in words]
    end = event("content_block_stop", index=0)
    end += event(
        "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": len(words)}
    )
    return [start + (deltas[0] if deltas else b""), *deltas[1:], end + event("message_stop")]


def _event(value: Any) -> bytes:
    return b"data: " + compact(value) + b"\n\n"


def error_line(path: str, message: str) -> bytes:
    """An error in mid-stream, as the route's server says it under status 200."""
    if path == "/v1/messages":
        return b"event: error\n" + _event({"type": "error", "error": {"type": "overloaded_error", "message": message}})
    if path.startswith("/v1/"):
        return _event({"error": {"message": message, "type": "server_error", "code": 500}})
    return compact({"error": message}) + b"\n"


def error_body(path: str, message: str, status: int) -> bytes:
    """The body of an error answer in the route's dialect."""
    if path == "/v1/messages":
        return compact({"type": "error", "error": {"type": "api_error", "message": message}, "request_id": "req_1"})
    if path.startswith("/v1/"):
        return compact({"error": {"message": message, "type": "invalid_request_error", "code": status}})
    return compact({"error": message})


def _embedding(path: str, document: dict[str, Any]) -> dict[str, Any]:
    given = document.get("prompt") if path == "/api/embeddings" else document.get("input")
    texts = given if isinstance(given, list) else [given or ""]
    vectors = [[byte / 255 for byte in hashlib.sha256(str(text).encode()).digest()[:4]] for text in texts]
    model, tokens = document.get("model", ""), tokens_of(document)
    if path == "/api/embeddings":
        return {"embedding": vectors[0]}
    if path == "/api/embed":
        counts = {"total_duration": 2_000_000, "load_duration": 1_000_000, "prompt_eval_count": tokens}
        return {"model": model, "embeddings": vectors, **counts}
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": model, "data": data, "usage": usage}


def model_entry(name: str, *, family: str = "llama", remote_host: str = "") -> dict[str, Any]:
    """A row of `/api/tags`."""
    row: dict[str, Any] = {
        "name": name,
        "model": name,
        "modified_at": CREATED,
        "size": 98_362_432,
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": family,
            "families": [family],
            "parameter_size": "134.52M",
            "quantization_level": "Q4_1",
        },
    }
    if remote_host:
        row["remote_host"] = remote_host
        row["remote_model"] = name.partition(":")[0]
    return row


def model_shown(row: dict[str, Any]) -> dict[str, Any]:
    """The answer of `/api/show` for a row of `/api/tags`."""
    family = row["details"]["family"]
    return {
        "license": "Apache-2.0",
        "modelfile": f"FROM {row['name']}",
        "parameters": 'stop "<|im_end|>"',
        "template": "{{ .Prompt }}",
        "details": row["details"],
        "model_info": {"general.architecture": family, f"{family}.context_length": 2048},
        "capabilities": ["embedding"] if "bert" in family else ["completion", "tools"],
        "modified_at": row["modified_at"],
    }


def anthropic_model(name: str) -> dict[str, Any]:
    """A row of `/v1/models`, as Anthropic has it."""
    return {"type": "model", "id": name, "display_name": name.title(), "created_at": "2026-01-02T00:00:00Z"}


def openai_model(name: str) -> dict[str, Any]:
    """A row of `/v1/models`."""
    return {"id": name, "object": "model", "created": CREATED_UNIX, "owned_by": "library"}
