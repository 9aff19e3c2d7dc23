"""The life of credentials against a simple model of who may in (Hypothesis, stateful; J4-J6, P3-P4).

Whatever people, thieves and administrators do, in whichever order, with restarts and time passing in between: after
each step every credential ever handed out is presented, and opens exactly where the model says so.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from common.errors import Conflict, Forbidden, GatewayError, Unauthenticated
from daemon.access.sessions import InvalidGrant, Issued
from daemon.config import Passwords
from tests.rigs.lodge import ADMIN, HERE, Lodge, lodge
from tests.rigs.traffic import DAY, HOUR, SECOND, MovedClock

REFRESH_LIFETIME = DAY // SECOND
CHEAP = Passwords(memory_kib=8, time=1)  # what a hash costs plays no part here


@dataclass(eq=False)
class Person:
    """A user, as the model knows one."""

    id: int
    email: str
    password: str | None = None
    one_time: str | None = None
    one_time_until: int = 0
    disabled: bool = False


@dataclass(eq=False)
class Session:
    """A refresh family."""

    person: Person
    ended: bool = False


@dataclass(eq=False)
class Refresh:
    """A refresh token."""

    session: Session
    text: str
    until: int
    used: bool = False


@dataclass(eq=False)
class Key:
    """An API key; `secrets` are those that open, with the end of their grace."""

    person: Person
    id: str
    secrets: dict[str, int | None] = field(default_factory=dict)
    all: list[str] = field(default_factory=list)
    revoked: bool = False


@dataclass(eq=False)
class Token:
    """An access token: of a session, or made from a key."""

    text: str
    until: int
    made_from: Session | Key
    revoked: bool = False
    epoch_ended: bool = False


class Life(RuleBasedStateMachine):
    """People, sessions, keys and tokens of one gateway, and what became of them."""

    refreshes: Bundle[Refresh] = Bundle("refreshes")
    keys: Bundle[Key] = Bundle("keys")
    who = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="gatelodge-life-"))
        self.clock = MovedClock()
        self.stack = AsyncExitStack()
        self.people: list[Person] = []
        self.known: list[Token] = []
        self.made = 0

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def open(self) -> None:
        opened = lodge(
            self.folder, clock=self.clock, cost=CHEAP, tokens__refresh_lifetime=REFRESH_LIFETIME,
            tokens__signing_key_lifetime=3600,
        )  # fmt: skip
        self.it: Lodge = self.do(self.stack.enter_async_context(opened))

    def teardown(self) -> None:
        self.do(self.stack.aclose())
        self.do(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)

    def new_password(self) -> str:
        self.made += 1
        return f"password number {self.made}"

    def end_epoch(self, person: Person) -> None:
        for token in self.known:
            if token.made_from.person is person:
                token.epoch_ended = True
                if isinstance(token.made_from, Session):
                    token.made_from.ended = True
        for session in self.sessions:
            if session.person is person:
                session.ended = True

    def took(self, issued: Issued, session: Session) -> Any:
        now = self.clock.wall()
        token = Token(issued.access_token, now + issued.expires_in * SECOND, session)
        self.known.append(token)
        assert issued.refresh_token is not None
        return token, Refresh(session, issued.refresh_token, now + REFRESH_LIFETIME * SECOND)

    # -- what happens -------------------------------------------------------------------------------------------------

    @initialize(target=refreshes)
    def begin(self) -> Any:
        self.sessions: list[Session] = []
        self.held: list[Key] = []
        self.open()
        for name in ("ana", "bea"):
            user, one_time = self.do(self.it.directory.add_user(ADMIN, f"{name}@example.org"))
            person = Person(user.id, user.email, None, one_time, self.clock.wall() + DAY)
            password = self.new_password()
            self.do(self.it.accounts.change_password(person.email, one_time, password, HERE))
            person.password, person.one_time = password, None
            self.people.append(person)
        return multiple()

    @rule(targets=(refreshes,), number=who)
    def login(self, number: int) -> Any:
        """With whichever password is there."""
        person = self.people[number]
        if person.one_time is not None:
            right = not person.disabled and self.clock.wall() < person.one_time_until
            with pytest.raises(Forbidden if right else Unauthenticated):
                self.do(self.it.accounts.login(person.email, person.one_time, self.address()))
            return multiple()
        assert person.password is not None
        if person.disabled:
            with pytest.raises(Unauthenticated):
                self.do(self.it.accounts.login(person.email, person.password, self.address()))
            return multiple()
        session = Session(person)
        self.sessions.append(session)
        _, refresh = self.took(self.do(self.it.accounts.login(person.email, person.password, self.address())), session)
        return refresh

    @rule(target=refreshes, refresh=refreshes)
    def refresh(self, refresh: Refresh) -> Any:
        """With any refresh token that ever was: the right one, one used before, one of an ended session."""
        session = refresh.session
        gone = refresh.until <= self.clock.wall()
        if session.ended or session.person.disabled or refresh.used or gone:
            with pytest.raises(InvalidGrant):
                self.do(self.it.sessions.refresh(refresh.text))
            if refresh.used and not session.person.disabled and not session.ended and not self.forgotten(refresh):
                session.ended = True
            return multiple()
        issued = self.do(self.it.sessions.refresh(refresh.text))
        refresh.used = True
        return self.took(issued, session)[1]

    @rule(refresh=refreshes)
    def revoke_session(self, refresh: Refresh) -> None:
        self.do(self.it.sessions.revoke(refresh.text))
        if not self.forgotten(refresh):
            refresh.session.ended = True

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 10**6))
    def revoke_token(self, which: int) -> None:
        token = self.known[which % len(self.known)]
        self.do(self.it.sessions.revoke(token.text))
        token.revoked = True

    @rule(number=who)
    def change_password(self, number: int) -> None:
        person, new = self.people[number], self.new_password()
        old = person.one_time or person.password or ""
        fit = not person.disabled and (person.one_time is None or self.clock.wall() < person.one_time_until)
        if not fit:
            with pytest.raises(Unauthenticated):
                self.do(self.it.accounts.change_password(person.email, old, new, self.address()))
            return
        self.do(self.it.accounts.change_password(person.email, old, new, self.address()))
        with pytest.raises(Unauthenticated):
            self.do(self.it.accounts.login(person.email, old, self.address()))
        person.password, person.one_time = new, None
        self.end_epoch(person)

    @rule(number=who)
    def reset_password(self, number: int) -> None:
        person = self.people[number]
        old = person.one_time or person.password or ""
        person.one_time = self.do(self.it.directory.reset_password(ADMIN, person.id))
        person.one_time_until, person.password = self.clock.wall() + DAY, None
        with pytest.raises(Unauthenticated):
            self.do(self.it.accounts.login(person.email, old, self.address()))
        self.end_epoch(person)

    @rule(number=who)
    def disable(self, number: int) -> None:
        person = self.people[number]
        self.do(self.it.directory.disable(ADMIN, person.id))
        if not person.disabled:
            self.end_epoch(person)
        person.disabled = True

    @rule(number=who)
    def enable(self, number: int) -> None:
        self.do(self.it.directory.enable(ADMIN, self.people[number].id))
        self.people[number].disabled = False

    @rule(target=keys, number=who)
    def issue_key(self, number: int) -> Any:
        person = self.people[number]
        issued, text = self.do(self.it.directory.issue_key(ADMIN, person.id, "a key"))
        key = Key(person, issued.id, {text: None}, [text])
        self.held.append(key)
        return key

    @rule(key=keys, grace=st.sampled_from([0, 60, 3600]))
    def rotate_key(self, key: Key, grace: int) -> None:
        if key.revoked:
            with pytest.raises(Conflict):
                self.do(self.it.directory.rotate_key(ADMIN, key.id, grace))
            return
        text = self.do(self.it.directory.rotate_key(ADMIN, key.id, grace))
        last = key.all[-1]
        key.secrets = {text: None} | ({last: self.clock.wall() + grace * SECOND} if grace else {})
        key.all.append(text)

    @rule(key=keys)
    def revoke_key(self, key: Key) -> None:
        self.do(self.it.directory.revoke_key(ADMIN, key.id))
        key.revoked = True

    @rule(key=keys, which=st.integers(0, 3))
    def token_from_key(self, key: Key, which: int) -> None:
        """As an OAuth client, with any secret the key ever had."""
        text = key.all[which % len(key.all)]
        client, _, secret = text.rpartition("_")
        held = self.it.access.key_of_client(client, secret, address=HERE)
        assert (held is not None) == self.opens(key, text)
        if held is not None:
            issued = self.it.sessions.issue_to_client(held)
            self.known.append(Token(issued.access_token, self.clock.wall() + issued.expires_in * SECOND, key))

    @rule(passed=st.sampled_from([SECOND, 59 * SECOND, 599 * SECOND, HOUR, DAY]))
    def time_passes(self, passed: int) -> None:
        self.clock.advance(passed)
        self.look_after()

    @rule()
    def restart(self) -> None:
        self.do(self.stack.aclose())
        self.open()

    # -- who may in ---------------------------------------------------------------------------------------------------

    @invariant()
    def each_credential_opens_as_the_model_says(self) -> None:
        """Every one that was ever handed out, at every step: from the second on, from what was remembered of it."""
        for token in self.known:
            owner = token.made_from
            ended = owner.ended if isinstance(owner, Session) else owner.revoked
            right = not (token.revoked or ended or token.epoch_ended or owner.person.disabled)
            assert self.is_let_in(token.text) == (right and self.clock.wall() < token.until), token
        for key in self.held:
            for text in key.all:
                assert self.is_let_in(text) == self.opens(key, text), (key.id, key.all.index(text))

    def opens(self, key: Key, text: str) -> bool:
        if key.revoked or key.person.disabled or text not in key.secrets:
            return False
        until = key.secrets[text]
        return until is None or self.clock.wall() < until

    def is_let_in(self, text: str) -> bool:
        try:
            caller = self.it.bearer(text)
        except GatewayError as error:
            assert error.status == 401
            return False
        assert self.it.access.still_counts(caller)
        return True

    # -- parts --------------------------------------------------------------------------------------------------------

    def address(self) -> str:
        """A new one each time: the throttle has tests of its own."""
        self.made += 1
        return f"10.{self.made >> 16 & 255}.{self.made >> 8 & 255}.{self.made & 255}"

    def look_after(self) -> None:
        self.do(self.it.sessions.look_after())

    def forgotten(self, refresh: Refresh) -> bool:
        """Whether the store need not know it any longer: it is over, and the gateway has looked after that."""
        return refresh.until <= self.clock.wall()


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_long_life() -> None:
    """The same, at length."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Life,
        settings=settings(
            max_examples=400, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
