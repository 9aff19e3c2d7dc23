"""J: access and refresh tokens, and the keys that sign them."""

from __future__ import annotations

from tests.assurance.rows import Mutation, Row

VECTORS = "tests/test_access_vectors.py"
TOKENS = "tests/test_access_tokens.py"
SESSIONS = "tests/test_access_sessions.py"
GATE = "tests/test_access_gate.py"
ROTATION = "tests/test_access_rotation.py"
LIFE = "tests/test_access_life.py::TestLife"

ROWS = (
    Row(
        "J1",
        "every Wycheproof JWS vector and our own Ed25519 vectors (forged, malleable S, small-order key, wrong kid) as a"
        " Bearer: 401, no traceback; JWK vectors on our key reader",
        (
            f"{VECTORS}::test_every_wycheproof_token_is_refused_by_a_whole_daemon",
            f"{VECTORS}::test_our_own_ed25519_vectors_are_refused_by_a_whole_daemon",
            f"{TOKENS}::test_no_wycheproof_key_is_taken_for_a_signing_key",
            f"{TOKENS}::test_a_damaged_signing_key_is_refused",
        ),
        (
            Mutation(
                "daemon/access/tokens.py",
                'content = _jws.decode(token, key.public, algorithms=["EdDSA"])',
                'content = _jws.decode(token, key.public, algorithms=["EdDSA"], options={"verify_signature": False})',
                (f"{VECTORS}::test_our_own_ed25519_vectors_are_refused_by_a_whole_daemon",),
            ),
            Mutation(
                "daemon/access/signing.py",
                "if public.public_bytes_raw() != decode(jwk.x):",
                "if False:",
                (f"{TOKENS}::test_a_damaged_signing_key_is_refused",),
            ),
            Mutation(
                "daemon/access/signing.py",
                "if jwk.kid != _thumbprint(jwk.x):",
                "if False:",
                (f"{TOKENS}::test_a_damaged_signing_key_is_refused",),
            ),
        ),
        "401 + 26 vectors of Wycheproof and 25 of our own, each twice at an inference route of a daemon of its own:"
        " 904 times 401, 0 tracebacks (counted by the test)",
    ),
    Row(
        "J2",
        "alg none, key confusion, kid injection, jku/jwk, blank signature, padding, oversize, deep JSON: all 401, no"
        " traceback, no outgoing connection",
        (
            f"{VECTORS}::test_no_header_is_obeyed_by_a_whole_daemon",
            f"{VECTORS}::test_the_watch_sees_what_a_daemon_reaches",
            f"{TOKENS}::test_a_header_that_is_not_one_of_ours_is_refused",
            f"{TOKENS}::test_each_token_has_one_spelling_only",
        ),
        (
            Mutation(
                "daemon/access/tokens.py",
                "key = next((key for key in self.keys if header == header_of(key)), None)",
                "key = next(iter(self.keys), None)",
                (f"{VECTORS}::test_no_header_is_obeyed_by_a_whole_daemon",),
            ),
            Mutation(
                "daemon/access/signing.py",
                "if encode(data) != text:",
                "if False:",
                (f"{TOKENS}::test_stray_bits_in_the_signature_are_refused",),
            ),
            Mutation(
                "daemon/access/tokens.py",
                "except (jwt.InvalidTokenError, msgspec.DecodeError) as error:",
                "except jwt.InvalidTokenError as error:",
                (f"{VECTORS}::test_no_header_is_obeyed_by_a_whole_daemon",),
            ),
        ),
        "198 hostile tokens (35 headers, each signed by five), each twice: 401; 0 tracebacks; 0 connections, look-ups"
        " or opened files seen by an audit hook, the loop's own methods and a listener named in the tokens",
    ),
    Row(
        "J3",
        "shape check before PyJWT, at most 4 KiB; header exactly alg, kid, typ; all RFC 9068 claims required, of their"
        " types; one algorithm a kid",
        (
            f"{TOKENS}::test_what_has_not_the_shape_of_a_token_never_reaches_pyjwt",
            f"{TOKENS}::test_oversize_tokens_are_refused_before_anything_is_computed",
            f"{TOKENS}::test_a_token_is_an_at_jwt_with_every_claim_of_rfc_9068",
            f"{TOKENS}::test_a_header_that_is_not_one_of_ours_is_refused",
            f"{TOKENS}::test_claims_that_are_not_ours_are_refused_though_rightly_signed",
            f"{TOKENS}::test_a_damaged_signing_key_is_refused",
        ),
        (
            Mutation(
                "daemon/access/tokens.py",
                "if len(token) > _LONGEST or not _SHAPE.fullmatch(token):",
                "if len(token) > _LONGEST:",
                (f"{TOKENS}::test_what_has_not_the_shape_of_a_token_never_reaches_pyjwt",),
            ),
            Mutation(
                "daemon/access/tokens.py",
                "if len(token) > _LONGEST or not _SHAPE.fullmatch(token):",
                "if not _SHAPE.fullmatch(token):",
                (f"{TOKENS}::test_oversize_tokens_are_refused_before_anything_is_computed",),
            ),
            Mutation(
                "daemon/access/tokens.py",
                "    jti: str\n    epoch: int\n",
                '    jti: str = ""\n    epoch: int = 1\n',
                (f"{TOKENS}::test_claims_that_are_not_ours_are_refused_though_rightly_signed",),
            ),
            Mutation(
                "daemon/access/tokens.py",
                "claims = msgspec.json.decode(content, type=Claims)",
                "claims = msgspec.json.decode(content, type=Claims, strict=False)",
                (f"{TOKENS}::test_claims_that_are_not_ours_are_refused_though_rightly_signed",),
            ),
            Mutation(
                "daemon/access/signing.py",
                '    alg: Literal["EdDSA"]\n',
                "    alg: str\n",
                (f"{TOKENS}::test_a_damaged_signing_key_is_refused",),
            ),
        ),
        "8 claims required, 10 wrong values refused though rightly signed; 11 shapes never reach PyJWT (counted)",
    ),
    Row(
        "J4",
        "refresh: opaque 256-bit, hashed at rest, rotates, reuse revokes the family",
        (
            f"{SESSIONS}::test_a_login_opens_a_session",
            f"{SESSIONS}::test_a_refresh_gives_the_next_tokens_of_the_same_session",
            f"{SESSIONS}::test_a_refresh_token_that_is_used_twice_ends_its_session",
            f"{SESSIONS}::test_of_many_refreshes_at_once_one_succeeds_and_the_session_ends",
            LIFE,
        ),
        (
            Mutation(
                "daemon/access/sessions.py",
                'return "glr_" + secrets.token_urlsafe(32)',
                'return "glr_" + secrets.token_urlsafe(16)',
                (f"{SESSIONS}::test_a_refresh_gives_the_next_tokens_of_the_same_session",),
            ),
            Mutation(
                "daemon/access/sessions.py",
                "return hashlib.sha256(token.encode()).digest()",
                "return token.encode()",
                (f"{SESSIONS}::test_a_login_opens_a_session",),
            ),
            Mutation(
                "daemon/access/sessions.py",
                "            session_rows.use(conn, token_hash, now_us)\n",
                "",
                (f"{SESSIONS}::test_of_many_refreshes_at_once_one_succeeds_and_the_session_ends",),
            ),
            Mutation(
                "daemon/access/sessions.py",
                "                session_rows.revoke_family(conn, found.family_id, now_us)\n                actor",
                "                actor",
                (f"{SESSIONS}::test_a_refresh_token_that_is_used_twice_ends_its_session",),
            ),
        ),
        "8 refreshes at once: 1 succeeds, the family ends; 20 lives of 30 random steps in every run, 400 of 60 in the"
        " long form, against a model of who may in",
    ),
    Row(
        "J5",
        "disabling, password change or reset bumps the epoch; revoking a key or refresh family ends only it and its"
        " tokens: refused on the next request, survives restart, live streams cut within 2 s",
        (
            f"{GATE}::test_the_end_of_a_credential_cuts_what_runs_under_it",
            f"{SESSIONS}::test_disabling_and_a_new_password_end_all_sessions_but_no_key",
            f"{SESSIONS}::test_revoking_a_refresh_token_ends_its_session_alone",
            f"{SESSIONS}::test_what_was_revoked_stays_revoked_after_a_restart",
            "tests/test_access_directory.py::test_revoking_a_key_cuts_what_runs_under_it_and_nothing_else",
            LIFE,
        ),
        (
            Mutation(
                "daemon/access/user_changes.py",
                'columns["epoch"] = user.epoch + 1',
                "pass",
                (f"{SESSIONS}::test_disabling_and_a_new_password_end_all_sessions_but_no_key",),
            ),
            Mutation(
                "daemon/access/identity.py",
                "if user.epoch != claims.epoch:",
                "if False:",
                (f"{SESSIONS}::test_disabling_and_a_new_password_end_all_sessions_but_no_key",),
            ),
            Mutation(
                "daemon/access/sessions.py",
                "self._ended_families = {family: at_us + _REMEMBERED_US for family, at_us in families}",
                "self._ended_families = {}",
                (f"{SESSIONS}::test_what_was_revoked_stays_revoked_after_a_restart",),
            ),
            Mutation(
                "daemon/access/sessions.py",
                "self._directory.tell(Cut(EndState.CREDENTIAL_REVOKED, reason, session=family_id))",
                "pass",
                (f"{SESSIONS}::test_revoking_a_refresh_token_ends_its_session_alone",),
            ),
            Mutation(
                "daemon/access/key_changes.py",
                'self.tell(Cut(EndState.CREDENTIAL_REVOKED, "the key was revoked", key_id=key_id))',
                "pass",
                ("tests/test_access_directory.py::test_revoking_a_key_cuts_what_runs_under_it_and_nothing_else",),
            ),
        ),
        "7 ways to end a credential, three streams each; from the revocation to the end of the stream at the client:"
        " p50 1.6 ms, at most 17 ms of 100 (python -m tests.bench.logins)",
    ),
    Row(
        "J6",
        "key rotation under load: 0 failed requests",
        (
            f"{ROTATION}::test_an_api_key_is_rotated_under_load_without_a_failed_request",
            f"{ROTATION}::test_signing_keys_are_rotated_under_load_without_a_failed_request",
            f"{TOKENS}::test_a_key_is_published_before_it_signs_and_after",
        ),
        (
            Mutation(
                "daemon/access/signing.py",
                "known = [key for key in self._keys if key.created_us <= known_since]",
                "known = self._keys",
                (f"{ROTATION}::test_signing_keys_are_rotated_under_load_without_a_failed_request",),
            ),
            Mutation(
                "daemon/access/signing.py",
                "now - self._keys[1].created_us >= PUBLISHED_AHEAD_US + _KEPT_AFTER_US:",
                "now - self._keys[1].created_us >= PUBLISHED_AHEAD_US:",
                (f"{ROTATION}::test_signing_keys_are_rotated_under_load_without_a_failed_request",),
            ),
            Mutation(
                "daemon/access/key_changes.py",
                "previous_hash=key.secret_hash if grace_seconds else None,",
                "previous_hash=None,",
                (f"{ROTATION}::test_an_api_key_is_rotated_under_load_without_a_failed_request",),
            ),
        ),
        "0 of 720 requests failed over 6 signing keys and a restart, every token verified by a key set up to five"
        " minutes old; 0 failed over 8 rotations of an API key in use by 4 clients (counted by the tests)",
    ),
)
