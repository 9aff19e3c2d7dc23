"""What a request holds besides the fields of its dialect, where the upstream speaks another one.

Rule: nothing is dropped in silence. The same dialect on both ends is relayed as it is, unknown fields and all. Where a
request is translated, a field that other servers are known to obey is a 400 that names it; what is left is named in the
answer's header (`X-Gatelodge-Ignored`), because clients send much that no server reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from common.errors import BadRequest
from daemon.dialects import anthropic_bodies, ollama_bodies, openai_bodies
from daemon.dialects.asks import Ask, Shape

NAMED = 10  # names that the header tells at most

_BODIES: dict[Shape, type[msgspec.Struct]] = {
    Shape.CHAT: ollama_bodies.OllamaChat,
    Shape.GENERATE: ollama_bodies.OllamaGenerate,
    Shape.EMBED: ollama_bodies.OllamaEmbed,
    Shape.EMBEDDINGS: ollama_bodies.OllamaEmbeddings,
    Shape.OPENAI_CHAT: openai_bodies.ChatCompletionAsk,
    Shape.OPENAI_COMPLETION: openai_bodies.CompletionAsk,
    Shape.OPENAI_EMBEDDING: openai_bodies.EmbeddingAsk,
    Shape.RESPONSES: openai_bodies.ResponseAsk,
    Shape.ANTHROPIC: anthropic_bodies.MessagesAsk,
}
_KNOWN = {
    shape: frozenset(field.encode_name for field in msgspec.structs.fields(body)) for shape, body in _BODIES.items()
}
# Of vLLM's, SGLang's and llama.cpp's servers: each changes what is answered.
_OBEYED = frozenset(
    [
        "allowed_token_ids",
        "bad_words",
        "chat_template",
        "dry_multiplier",
        "ebnf",
        "grammar",
        "guided_choice",
        "guided_decoding_backend",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "ignore_eos",
        "json_schema",
        "length_penalty",
        "logits_processors",
        "lora",
        "min_tokens",
        "n_predict",
        "prompt_logprobs",
        "regex",
        "repetition_penalty",
        "stop_regex",
        "stop_token_ids",
        "structured_outputs",
        "t_max_predict_ms",
        "use_beam_search",
        "xtc_probability",
    ]
)
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def unknown_fields(ask: Ask) -> list[str]:
    """The names of the fields that `ask`'s dialect does not know and that say something, in their order."""
    known = _KNOWN.get(ask.shape)
    if known is None or known.issuperset(ask.document):
        return []
    return [name for name, value in ask.document.items() if name not in known and value is not None]


def refuse_obeyed(ask: Ask) -> None:
    """BadRequest where a field that the translation has no words for would have changed the answer."""
    for name in unknown_fields(ask):
        if name in _OBEYED and ask.document[name]:
            raise BadRequest(
                f"{name} is not possible with the model {ask.model!r}: its server speaks another dialect, which has "
                "nothing like it",
                code="not_supported_by_upstream",
                detail={"param": name},
            )


def told(ask: Ask, left_out: Sequence[str] = ()) -> str:
    """The header's value: names, those that a translator left out first, then `+N` for those that are too many or no
    plain words. Empty: none."""
    names = [*left_out, *unknown_fields(ask)]
    plain = [name for name in names if _PLAIN.fullmatch(name)][:NAMED]
    more = len(names) - len(plain)
    return ", ".join([*plain, *([f"+{more}"] if more else [])])
