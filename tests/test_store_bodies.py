"""Bodies: each text once per user, compressed, found again, erased for good; and what a conversation costs."""

from __future__ import annotations

import base64
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.access.actor import DAEMON
from daemon.audit.documents import join_request, prompt_of, prompt_of_parts, response_of, split_request, weight
from daemon.exchange import EndState
from daemon.store.bodies import (
    Body,
    DamagedBody,
    keep_body,
    load_body,
    pack,
    pack_ids,
    prepare_body,
    unpack,
    unpack_ids,
)
from daemon.store.journal import append_user_deletion
from tests.rigs.journals import Desk, desk_in

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
WORDS = """
    the of gateway and record every in stream to a model answer is that queue was for seat on as with journal his
    they at be this from have or by one had not but what all were when we there can an your which their said
""".split()  # noqa: SIM905


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_in(tmp_path) as opened:
        yield opened


def prose(length: int, seed: int) -> str:
    """Text of about `length` characters that compresses as English does, no two the same."""
    dice = random.Random(seed)
    words: list[str] = []
    while sum(map(len, words)) + len(words) < length:
        words.append(dice.choice(WORDS) if dice.random() < 0.6 else "".join(dice.choices("abcdeilnorstu", k=6)))
    return " ".join(words)


async def keep(desk: Desk, user_id: int, *texts: bytes) -> Body:
    return await desk.database.write(lambda conn: keep_body(conn, user_id, texts))


async def load(desk: Desk, body: Body) -> list[bytes] | None:
    return await desk.database.read(lambda conn: load_body(conn, body.manifest))


async def test_a_text_is_stored_once_per_user(desk: Desk) -> None:
    """The same text again is the same part; another user's equal text is not."""
    first = await keep(desk, 1, b"one", b"two", b"one")
    again = await keep(desk, 1, b"two", b"three")
    other = await keep(desk, 2, b"one")
    assert await desk.rows("SELECT user_id, COUNT(*) FROM parts GROUP BY user_id") == [(1, 3), (2, 1)]
    assert await load(desk, first) == [b"one", b"two", b"one"]
    assert await load(desk, again) == [b"two", b"three"]
    assert await load(desk, other) == [b"one"]
    lookups = await desk.rows("SELECT lookup FROM parts WHERE size = 3")
    assert len({lookup for (lookup,) in lookups}) == 3  # one, two, and the other user's one: nothing links them


async def test_a_long_text_lies_compressed(desk: Desk) -> None:
    """zlib, where it helps."""
    await keep(desk, 1, b"x" * 10_000)
    await keep(desk, 1, b"short")
    rows = await desk.rows("SELECT compressed, size, length(data) < 100 FROM parts ORDER BY id")
    assert rows == [(1, 10_000, 1), (0, 5, 1)]


async def test_a_conversation_of_forty_turns_costs_about_its_text(desk: Desk) -> None:
    """performance.md: each message once, <= 1.5 times the distinct text, with records, indexes and all."""
    turns = 40
    (before,) = await pages(desk)
    texts: list[str] = []
    for turn in range(turns):
        texts.append(prose(400, 2 * turn))
        exchange = desk.exchange(*texts)
        await desk.journal.opened(exchange)
        texts.append(prose(1_600, 2 * turn + 1))
        await desk.end(exchange, EndState.OK, texts[-1])
    (after,) = await pages(desk)
    distinct = sum(len(text.encode()) for text in texts)
    # Every message once, and one head and one tail for all turns.
    assert await desk.rows("SELECT COUNT(*) FROM parts") == [(2 * turns + 2,)]
    assert after - before <= 1.5 * distinct, f"{(after - before) / distinct:.2f} times its text"


async def test_an_image_that_each_turn_repeats_is_stored_once(desk: Desk) -> None:
    """Row 86: the history of a chat about a picture holds the picture in every turn."""
    image = base64.b64encode(random.Random(1).randbytes(300_000)).decode()
    (before,) = await pages(desk)
    texts = ["What is it?"]
    for turn in range(10):
        exchange = desk.exchange(*texts)
        exchange.document["messages"][0]["images"] = [image]
        await desk.journal.opened(exchange)
        await desk.end(exchange, EndState.OK, f"answer {turn}")
        texts += [f"answer {turn}", f"question {turn}"]
    (after,) = await pages(desk)
    assert after - before <= 1.5 * len(image)


async def pages(desk: Desk) -> tuple[int]:
    (used,) = await desk.rows(
        "SELECT (SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size)"
        " - (SELECT freelist_count FROM pragma_freelist_count) * 4096"
    )
    return used  # type: ignore[return-value]


async def test_an_erased_user_leaves_no_text_behind(desk: Desk) -> None:
    """Texts, salts, lookups and the key are overwritten in the file, not only unlinked."""
    secret = random.Random(1).randbytes(20_000).hex().encode()  # over many pages, which an erasure frees
    body = await keep(desk, 1, b"tiny oak secret", secret)
    ((lying,),) = await desk.rows("SELECT data FROM parts WHERE user_id = 1 AND size > 15")
    others = await keep(desk, 2, b"another secret")
    ((key, salt),) = await desk.rows(
        "SELECT body_key, salt FROM users JOIN parts ON user_id = users.id WHERE users.id = 1 AND size = 15"
    )

    def delete(conn: sqlite3.Connection) -> int:
        return append_user_deletion(
            conn, actor=DAEMON, user_id=1, target="user:ana@example.org", detail={}, at_us=1, clock_us=1
        )

    assert await desk.database.write(delete) == 2
    assert await load(desk, body) is None
    assert await load(desk, others) == [b"another secret"]
    assert await desk.rows("SELECT body_key FROM users WHERE id = 1") == [(None,)]
    ((detail,),) = await desk.rows("SELECT detail FROM journal WHERE event = 'admin' AND user_id = 1")
    assert msgspec.json.decode(detail)["erased_parts"] == 2
    await desk.database.close()  # moves the log into the file
    everything = b"".join(file.read_bytes() for file in desk.folder.glob("gatelodge.db*"))
    pieces = [lying[start : start + 50] for start in range(0, len(lying) - 50, 50)]
    for gone in (b"tiny oak secret", key, salt, *pieces):
        assert gone not in everything


async def test_what_is_prepared_ahead_is_stored_the_same(desk: Desk) -> None:
    """The reader's half and the writer's half together do what the writer does alone."""
    known = await keep(desk, 1, b"known")
    texts = [b"known", b"new" * 50]
    ahead = await desk.database.read(lambda conn: prepare_body(conn, 1, texts))
    assert ahead is not None and len(ahead.packed) == 1
    await keep(desk, 1, b"new" * 50)  # somebody was faster
    body = await desk.database.write(lambda conn: keep_body(conn, 1, texts, ahead))
    assert await load(desk, body) == texts
    assert unpack_ids(body.manifest)[0] == unpack_ids(known.manifest)[0]
    assert await desk.database.read(lambda conn: prepare_body(conn, 2, texts)) is None  # no key yet


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM parts",
        "UPDATE parts SET data = x'00'",
        "UPDATE parts SET size = size - 1",
        "UPDATE parts SET size = size + 1",
        "UPDATE parts SET data = substr(data, 1, length(data) - 3)",
        "UPDATE parts SET data = data || x'00'",
    ],
)
async def test_a_damaged_part_is_named_and_never_taken_for_the_text(desk: Desk, damage: str) -> None:
    """Missing, garbled, shorter, longer: DamagedBody."""
    body = await keep(desk, 1, b"a text that is worth compressing, " * 20)
    await desk.database.write(lambda conn: conn.execute(damage).fetchone())
    with pytest.raises(DamagedBody):
        await load(desk, body)


def test_a_forged_row_is_no_bomb() -> None:
    """Decompression stops at the size that was stored."""
    bomb = pack(b"\0" * 50_000_000)
    with pytest.raises(DamagedBody):
        unpack(10, 1, bomb.data)


@given(st.lists(st.integers(1, 2**62), min_size=1, max_size=50))
def test_ids_come_back_as_they_were_packed(ids: list[int]) -> None:
    """Any order, any size."""
    assert unpack_ids(pack_ids(ids)) == ids


def test_neighbouring_ids_take_a_byte_each() -> None:
    """A turn names every message before it: that must not cost what the messages cost."""
    assert len(pack_ids([1_000_000, *range(1_000_001, 1_000_061)])) == 63


@given(st.binary(max_size=20))
def test_garbled_ids_are_damage_and_nothing_else(garbled: bytes) -> None:
    """A flipped bit in a manifest is DamagedBody or a list of ids, never another error."""
    try:
        assert all(id_ > 0 for id_ in unpack_ids(garbled))
    except DamagedBody:
        pass


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), JSON, max_size=5), JSON)
def test_a_request_joins_to_what_it_was(document: dict[str, object], messages: object) -> None:
    """Any document with any `messages`, anywhere among the keys, comes back equal."""
    names = list(document)
    for place in range(len(names) + 1):
        whole = {name: document[name] for name in names[:place]} | {"messages": messages}
        whole |= {name: document[name] for name in names[place:] if name != "messages"}
        assert msgspec.json.decode(join_request(split_request(whole))) == whole


def test_a_message_has_the_same_bytes_whoever_sends_it() -> None:
    """role and content first, the rest as it came: the turn that repeats an answer finds it stored."""
    one = split_request({"model": "m", "messages": [{"content": "c", "role": "user", "images": ["i"]}]})
    two = split_request({"messages": [{"images": ["i"], "role": "user", "content": "c"}], "model": "m"})
    assert one[1] == two[1] == b'{"role":"user","content":"c","images":["i"]}'


def test_the_prompt_is_the_last_thing_the_user_said() -> None:
    """The prompt, the last user message as text, or the input."""
    chat = {
        "messages": [
            {"role": "user", "content": "first"},
            {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "image_url"}]},
            {"role": "assistant", "content": "no"},
        ]
    }
    for document, prompt in [
        ({"prompt": "p"}, "p"),
        (chat, "second"),
        ({"input": "i"}, "i"),
        ({"input": ["i", "j"]}, "i\nj"),
        ({"messages": []}, ""),
        ({"messages": ["odd", {"role": "user"}]}, ""),
        ({}, ""),
    ]:
        assert prompt_of(document) == prompt_of_parts(split_request(document)) == prompt


def test_the_response_is_the_messages_text() -> None:
    """A message's content; an embedding's JSON; what was cut off, as it is."""
    assert response_of({"role": "assistant", "content": "hello", "thinking": "hm"}) == "hello"
    assert response_of({"embeddings": [[0.5]]}) == '{"embeddings":[[0.5]]}'
    assert response_of('{"embed') == '{"embed'


def test_the_weight_of_a_request_is_about_its_size() -> None:
    """What the bound on waiting bytes counts: long texts, images and inputs, wherever they are."""
    text = "x" * 10_000
    for document in (
        {"prompt": text},
        {"messages": [{"role": "user", "content": text}]},
        {"messages": [{"role": "user", "content": "", "images": [text]}]},
        {"input": [text[:5_000], text[5_000:]]},
    ):
        assert 10_000 <= weight(document) <= 10_100


def test_the_salt_is_new_for_every_part() -> None:
    """Equal texts have different commitments, so what remains of an erased one cannot be compared."""
    assert pack(b"same").commitment != pack(b"same").commitment
