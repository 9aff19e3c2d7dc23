"""P: passwords, API keys, and no secret where it does not belong."""

from __future__ import annotations

from tests.assurance.rows import Mutation, Row

PASSWORDS = "tests/test_access_passwords.py"
ACCOUNTS = "tests/test_access_accounts.py"
WEB = "tests/test_web_accounts.py"
POOL = "tests/test_access_pool.py"
THROTTLE = "tests/test_access_throttle.py"
KEYS = "tests/test_access_keys.py"
LEAKS = "tests/test_access_leaks.py"
INLINE = "tests/test_access_inline.py"
CLASSIC = "tests/test_gate_classic.py"

ROWS = (
    Row(
        "P1",
        "argon2id (m=19 MiB, t=2, p=1 or stronger, configurable) in a pool of 2 with at most 32 waiting, then 503; the"
        " loop's lag under 200 logins: p99 within 50 ms",
        (
            f"{PASSWORDS}::test_a_password_is_kept_as_argon2id_of_the_demanded_cost",
            f"{POOL}::test_34_logins_are_taken_and_the_next_is_503_at_once",
            f"{POOL}::test_the_event_loop_computes_no_hash",
            f"{PASSWORDS}::test_the_event_loop_runs_on_while_passwords_are_hashed",
        ),
        (
            Mutation(
                "daemon/access/passwords.py",
                "if self._unfinished >= self._most and not always:",
                "if False:",
                (f"{POOL}::test_34_logins_are_taken_and_the_next_is_503_at_once",),
            ),
            Mutation(
                "daemon/access/passwords.py",
                "future = self._executor.submit(compute)",
                "future: Future[T] = Future()\n            future.set_result(compute())",
                (f"{POOL}::test_the_event_loop_computes_no_hash",),
            ),
            Mutation(
                "daemon/config.py",
                "time: Annotated[int, Meta(ge=2)] = 2",
                "time: Annotated[int, Meta(ge=1)] = 1",
                (f"{PASSWORDS}::test_a_password_is_kept_as_argon2id_of_the_demanded_cost",),
            ),
        ),
        "200 logins, 34 at once, 3.4 to 4.5 s on two cores: lag p50 0.11 ms, p99 1.8 to 5.1 ms"
        " (python -m tests.bench.logins)",
    ),
    Row(
        "P2",
        "unknown, disabled and wrong password: same path, same bytes, same time",
        (
            f"{ACCOUNTS}::test_every_refused_login_gets_the_same_answer_at_the_same_cost",
            f"{ACCOUNTS}::test_a_password_change_tells_no_more_than_a_login",
            f"{WEB}::test_every_refused_login_has_the_same_bytes",
            f"{PASSWORDS}::test_checking_against_nothing_costs_as_much_as_against_a_hash",
            f"{PASSWORDS}::test_an_old_cheaper_hash_is_checked_at_the_new_cost",
        ),
        (
            Mutation(
                "daemon/access/passwords.py",
                "        if missing > 0:\n",
                "        if False:\n",
                (f"{PASSWORDS}::test_an_old_cheaper_hash_is_checked_at_the_new_cost",),
            ),
            Mutation(
                "daemon/access/passwords.py",
                "right = await self._run(lambda: self._checked(text, against))",
                "right = stored is not None and await self._run(lambda: self._checked(text, against))",
                (f"{ACCOUNTS}::test_every_refused_login_gets_the_same_answer_at_the_same_cost",),
            ),
            Mutation(
                "daemon/access/accounts.py",
                'if right and credentials is not None and credentials.status == "active":',
                "if right and credentials is not None:",
                (f"{ACCOUNTS}::test_every_refused_login_gets_the_same_answer_at_the_same_cost",),
            ),
        ),
        "100 of each in turn: medians 45.93, 45.94 and 46.04 ms, means differ by 0.4 standard errors"
        " (python -m tests.bench.logins)",
    ),
    Row(
        "P3",
        "throttle per account+address and per address, exponential from the 5th failure; an attacker elsewhere never"
        " locks the owner out; survives restart",
        (
            f"{THROTTLE}::test_from_the_fifth_failure_the_wait_doubles",
            f"{THROTTLE}::test_an_address_that_tries_many_accounts_waits_for_all",
            f"{THROTTLE}::test_an_attacker_elsewhere_does_not_lock_the_owner_out",
            f"{ACCOUNTS}::test_wrong_passwords_are_throttled_and_a_restart_forgives_none",
            f"{ACCOUNTS}::test_a_thousand_guesses_at_once_are_five",
            f"{WEB}::test_too_many_wrong_passwords_are_429_with_a_time",
        ),
        (
            Mutation(
                "daemon/access/throttle.py",
                "min(MICROSECONDS << doublings, LONGEST_WAIT_US)",
                "MICROSECONDS",
                (f"{THROTTLE}::test_from_the_fifth_failure_the_wait_doubles",),
            ),
            Mutation(
                "daemon/access/throttle.py",
                'f"{account}\\0{network_of(address)}"',
                "account",
                (f"{THROTTLE}::test_an_attacker_elsewhere_does_not_lock_the_owner_out",),
            ),
            Mutation(
                "daemon/access/throttle.py",
                "max(self._wait(attempt.account_scope, now), self._wait(attempt.address_scope, now, by_running=False))",
                "self._wait(attempt.account_scope, now)",
                (f"{THROTTLE}::test_an_address_that_tries_many_accounts_waits_for_all",),
            ),
            Mutation(
                "daemon/access/accounts.py",
                "self._throttle.restore(await self._database.read(partial(throttle_rows.load, since_clock=since)))",
                "await self._database.read(partial(throttle_rows.load, since_clock=since))",
                (f"{ACCOUNTS}::test_wrong_passwords_are_throttled_and_a_restart_forgives_none",),
            ),
        ),
        "waits of 1, 2, 4 … 512, 900 s from the 5th failure; of 1,000 guesses at once 5 are checked (counted)",
    ),
    Row(
        "P4",
        "temporary passwords of at least 128 bits, single use, at most 24 h, only good for setting a new one",
        (
            f"{PASSWORDS}::test_a_one_time_password_has_at_least_128_bits",
            f"{ACCOUNTS}::test_a_one_time_password_opens_the_password_change_and_nothing_else",
            f"{ACCOUNTS}::test_a_one_time_password_used_twice_at_once_sets_one_password",
            f"{WEB}::test_a_one_time_password_only_sets_a_new_one",
        ),
        (
            Mutation(
                "daemon/access/passwords.py",
                "number = secrets.randbits(160)",
                "number = secrets.randbits(120)",
                (f"{PASSWORDS}::test_a_one_time_password_has_at_least_128_bits",),
            ),
            Mutation(
                "daemon/access/accounts.py",
                "if self._clock.wall() < (credentials.one_time_expires_us or 0):",
                "if True:",
                (f"{ACCOUNTS}::test_a_one_time_password_opens_the_password_change_and_nothing_else",),
            ),
            Mutation(
                "daemon/access/accounts.py",
                'if verdict.kind == "one_time":',
                "if False:",
                (f"{ACCOUNTS}::test_a_one_time_password_opens_the_password_change_and_nothing_else",),
            ),
            Mutation(
                "daemon/access/user_changes.py",
                "        if user.epoch != epoch:\n",
                "        if False:\n",
                (f"{ACCOUNTS}::test_a_one_time_password_used_twice_at_once_sets_one_password",),
            ),
        ),
        "160 bits, 24 h to the second; of 4 uses at once 1 sets a password (counted)",
    ),
    Row(
        "P5",
        "at least 8 characters, up to 128, no composition rules, common list refused",
        (
            f"{PASSWORDS}::test_the_bounds_of_a_password_belong_to_it",
            f"{PASSWORDS}::test_the_longest_password_counts_to_its_last_character",
            f"{PASSWORDS}::test_composition_is_free",
            f"{PASSWORDS}::test_the_common_ones_are_refused",
            f"{WEB}::test_an_unfit_password_is_refused_in_words",
        ),
        (
            Mutation(
                "daemon/access/passwords.py",
                "if len(text) < SHORTEST:",
                "if len(text) <= SHORTEST:",
                (f"{PASSWORDS}::test_the_bounds_of_a_password_belong_to_it",),
            ),
            Mutation(
                "daemon/access/passwords.py",
                "if len(text) > LONGEST:",
                "if False:",
                (f"{PASSWORDS}::test_the_bounds_of_a_password_belong_to_it",),
            ),
            Mutation(
                "daemon/access/passwords.py",
                "if is_common(text):",
                "if False:",
                (f"{PASSWORDS}::test_the_common_ones_are_refused",),
            ),
        ),
        "12,310 common passwords refused, in any case (wc -l daemon/access/common_passwords.txt)",
    ),
    Row(
        "P6",
        "a password in a request's body is checked once as a login is, then for at most 60 s by a keyed MAC bound to"
        " network, hash and epoch; the same path, bytes and waits where it is wrong; it can be switched off for a user",
        (
            f"{INLINE}::test_it_is_checked_once_and_then_remembered_for_a_minute",
            f"{INLINE}::test_many_that_begin_at_once_have_it_checked_once",
            f"{INLINE}::test_what_is_remembered_ends_with_what_it_stands_for",
            f"{INLINE}::test_whatever_is_wrong_with_it_is_told_as_at_the_login_and_costs_the_same",
            f"{INLINE}::test_guesses_are_throttled_together_with_those_at_the_login",
            f"{INLINE}::test_a_throttled_guesser_is_not_told_by_what_is_remembered_that_a_guess_is_right",
            f"{INLINE}::test_nothing_of_the_password_is_kept",
            f"{CLASSIC}::test_a_password_in_the_body_gets_one_answer",
            f"{CLASSIC}::test_a_wrong_password_in_the_body_is_refused_as_at_the_login",
            f"{CLASSIC}::test_a_new_password_cuts_what_runs_under_the_old_one",
            f"{CLASSIC}::test_a_user_may_have_it_switched_off",
        ),
        (
            Mutation(
                "daemon/access/inline.py",
                "if known is None or self._clock.now() >= known.until_clock:",
                "if known is None:",
                (f"{INLINE}::test_it_is_checked_once_and_then_remembered_for_a_minute",),
            ),
            Mutation(
                "daemon/access/inline.py",
                "return (user.id, user.epoch, user.version) == (self.user_id, self.epoch, self.version)",
                "return True",
                (f"{INLINE}::test_what_is_remembered_ends_with_what_it_stands_for",),
            ),
            Mutation(
                "daemon/access/inline.py",
                "self._key = secrets.token_bytes(32)",
                "self._key = bytes(32)",
                (f"{INLINE}::test_nothing_of_the_password_is_kept",),
            ),
            Mutation(
                "daemon/access/accounts.py",
                "            self._throttle.check(known.email, address)\n",
                "",
                (f"{INLINE}::test_a_throttled_guesser_is_not_told_by_what_is_remembered_that_a_guess_is_right",),
            ),
            Mutation(
                "daemon/access/accounts.py",
                "    if not user.inline_auth:\n",
                "    if False:\n",
                (f"{INLINE}::test_what_is_remembered_ends_with_what_it_stands_for",),
            ),
            Mutation(
                "daemon/dialects/strict_json.py",
                "value.pop(spellings[0])",
                "value.get(spellings[0])",
                (
                    f"{CLASSIC}::test_a_password_in_the_body_gets_one_answer",
                    "tests/test_access_leaks.py::test_a_password_in_any_body_is_neither_recorded_nor_forwarded[openai]",
                ),
            ),
        ),
        "the first 33 ms, each of the next 5,000 within the minute 13 us (median); of 20 at once 1 is computed",
    ),
    Row(
        "P7",
        "rehash when parameters rise; API keys 256-bit, SHA-256 at rest, prefix shown",
        (
            f"{ACCOUNTS}::test_an_old_hash_is_raised_at_the_next_login",
            f"{KEYS}::test_a_key_is_written_as_promised",
            f"{KEYS}::test_only_a_digest_is_kept",
            "tests/test_access_directory.py::test_a_key_is_shown_once_and_kept_as_a_digest",
            f"{WEB}::test_a_keys_life_at_its_owners_hands",
        ),
        (
            Mutation(
                "daemon/access/accounts.py",
                "if old_hash is None or not self._passwords.is_outdated(old_hash):",
                "if True:",
                (f"{ACCOUNTS}::test_an_old_hash_is_raised_at_the_next_login",),
            ),
            Mutation(
                "daemon/access/keys.py",
                "_SECRET_LENGTH = 43",
                "_SECRET_LENGTH = 42",
                (f"{KEYS}::test_a_key_is_written_as_promised",),
            ),
            Mutation(
                "daemon/access/keys.py",
                "return hashlib.sha256(secret.encode()).digest()",
                "return secret.encode()",
                (f"{KEYS}::test_only_a_digest_is_kept",),
            ),
            Mutation(
                "daemon/web/own_keys.py",
                '        "prefix": PREFIX + key.id,\n',
                "",
                (f"{WEB}::test_a_keys_life_at_its_owners_hands",),
            ),
        ),
        "43 of 62 characters: 256.03 bits (math.log2(62) * 43)",
    ),
    Row(
        "P8",
        "a grep of every file of a run for every secret used in it finds none",
        (
            f"{LEAKS}::test_no_secret_of_a_run_is_left_anywhere",
            f"{LEAKS}::test_a_password_in_any_body_is_neither_recorded_nor_forwarded",
            "tests/test_providers_discretion.py::test_nobody_hears_of_the_key_from_an_upstream",
            f"{LEAKS}::test_the_search_finds_a_planted_secret_in_every_form",
            f"{LEAKS}::test_the_search_finds_a_planted_secret_in_every_place",
            f"{LEAKS}::test_a_secret_that_is_added_later_is_not_forgotten",
            f"{LEAKS}::test_a_credential_in_a_path_is_not_logged",
        ),
        (
            Mutation(
                "daemon/web/base.py",
                '"route": without_credentials(route)',
                '"route": route',
                (f"{LEAKS}::test_no_secret_of_a_run_is_left_anywhere",),
            ),
            Mutation(
                "daemon/relay.py",
                "            discretion.keep(failure)\n",
                "            pass\n",
                ("tests/test_providers_discretion.py::test_nobody_hears_of_the_key_from_an_upstream[openai]",),
            ),
            Mutation(
                "daemon/providers/upstream.py",
                "self.discretion.body(response.status, answer)",
                "answer",
                ("tests/test_providers_discretion.py::test_nobody_hears_of_the_key_from_an_upstream[ollama]",),
            ),
            Mutation(
                "daemon/engine/supervisor.py",
                '*(sys.executable, "-I", str(CHILD)),',
                '*(sys.executable, "-I", str(CHILD), self.key),',
                (f"{LEAKS}::test_no_secret_of_a_run_is_left_anywhere",),
            ),
            Mutation(
                "daemon/access/sessions.py",
                "                token_hash=_hash(refresh_token),\n",
                "                token_hash=refresh_token.encode(),\n",
                (f"{LEAKS}::test_no_secret_of_a_run_is_left_anywhere",),
            ),
        ),
        "69 secrets in 14 forms each, collected by the rig itself, in every file, database cell, child's arguments"
        " and environment, while the run goes on and after it: 0 found; planted ones are found in every form and place",
    ),
)
