"""HTTP: the rows of letter H, but for certificates (H11)."""

from __future__ import annotations

from tests.assurance.rows import Mutation, Row

SMUGGLING = "tests/test_gate_smuggling.py::test_no_payload_smuggles_a_request"
ALONE = (f"{SMUGGLING}[alone]",)
BOUNDS = "tests/test_gate_bounds.py::test_"
CARRYING = "tests/test_gate_carrying.py::test_"
ROUTES = "tests/test_gate_routes.py::test_"
JSON = "tests/test_dialects_strict_json.py::test_"
POOL = "tests/test_providers_http.py::test_"
FAILURES = "tests/test_gate_upstream_failures.py::test_"
FUZZ = "tests/test_fuzz_targets.py::test_no_seed_and_no_spoiled_one_is_a_find"

ROWS = (
    Row(
        "H1",
        "A request's head and framing can be read in one way only: every known smuggling payload has its verdict, alone"
        " and behind nginx; at most 100 headers and 32 KiB (431), a body within `server.max_body` (413).",
        (
            SMUGGLING,
            "tests/test_gate_smuggling.py::test_the_corpus_is_whole",
            f"{ROUTES}ambiguous_or_excessive_heads_are_refused",
            f"{ROUTES}a_body_too_large_is_413",
            f"{BOUNDS}what_is_not_inference_is_small",
            f"{BOUNDS}who_is_refused_while_sending_can_read_why",
            f"{FUZZ}[head]",
        ),
        (
            Mutation("daemon/web/heads.py", "if _HEAD.fullmatch(head) is None:", "if False:", ALONE),
            Mutation("daemon/web/heads.py", "if len(head) > MAX_HEAD:", "if False:", ALONE),
            Mutation("daemon/web/heads.py", "if len(lines) - first > MAX_HEADERS + 3:", "if False:", ALONE),
            Mutation("daemon/web/heads.py", "    if len(lengths) > 1:", "    if False:", ALONE),
            Mutation(
                "daemon/web/heads.py", "if lengths and _LENGTH.fullmatch(lengths[0]) is None:", "if False:", ALONE
            ),
            Mutation("daemon/web/heads.py", 'if start_line.version == "HTTP/1.0":', "if False:", ALONE),
            Mutation("daemon/web/heads.py", 'if len(headers.get_list("Authorization")) > 1:', "if False:", ALONE),
            Mutation(
                "daemon/web/heads.py", '(start_line.version == "HTTP/1.1" and "Host" not in headers)', "False", ALONE
            ),
            Mutation("daemon/web/heads.py", 'if not start_line.path.startswith("/") and', "if False and", ALONE),
            Mutation("daemon/web/connection.py", "while not self.stream.closed():", "while True:", ALONE),
            Mutation(
                "daemon/web/bounds.py",
                "if length is not None and length > limit:",
                "if False:",
                (f"{BOUNDS}what_is_not_inference_is_small", f"{BOUNDS}who_is_refused_while_sending_can_read_why"),
            ),
            Mutation(
                "daemon/web/bounds.py",
                "        if self._left < 0:",
                "        if False:",
                (f"{ROUTES}a_body_too_large_is_413",),
            ),
            Mutation(
                "daemon/web/connection.py",
                "            self._farewells.add(self.stream)",
                "            pass",
                (f"{BOUNDS}who_is_refused_while_sending_can_read_why",),
            ),
        ),
        "285 payloads of 13 families, each played 3 ways (alone, nginx 1.22 with and without buffering): 855 verdicts,"
        " 0 smuggled requests",
    ),
    Row(
        "H2",
        "Dripping, silent and half-open connections end within 10 s and hurt nobody; an idle one after 60 s; an address"
        " holds at most 1,024, configured proxies excepted; what bodies take together is bounded.",
        (
            f"{BOUNDS}dripping_and_silent_connections_are_closed_and_hurt_nobody",
            f"{BOUNDS}five_hundred_dripping_connections_are_closed_within_ten_seconds",
            f"{BOUNDS}a_handshake_that_does_not_come_ends_the_connection",
            f"{BOUNDS}a_kept_connection_idles_for_a_while_only",
            f"{BOUNDS}a_slow_but_steady_body_is_read",
            f"{BOUNDS}a_body_has_a_pace",
            f"{BOUNDS}a_body_that_stops_is_not_waited_for",
            f"{BOUNDS}a_proxy_may_hold_as_many_connections_as_it_likes",
            f"{ROUTES}connections_of_one_address_are_bounded",
            f"{BOUNDS}large_bodies_share_a_bounded_memory",
            f"{BOUNDS}a_body_without_a_credential_is_not_read_to_its_end",
        ),
        (
            Mutation(
                "daemon/web/bounds.py",
                "if now - self._since >= HEAD_TIMEOUT:",
                "if False:",
                (f"{BOUNDS}dripping_and_silent_connections_are_closed_and_hurt_nobody",),
            ),
            Mutation(
                "daemon/web/bounds.py",
                "if now - self._since >= IDLE_TIMEOUT:",
                "if False:",
                (f"{BOUNDS}a_kept_connection_idles_for_a_while_only",),
            ),
            Mutation(
                "daemon/web/bounds.py",
                "elif self._still(received, now) >= BODY_SILENCE:",
                "elif False:",
                (f"{BOUNDS}a_body_that_stops_is_not_waited_for",),
            ),
            Mutation(
                "daemon/web/bounds.py",
                "if now - self._announced >= BODY_SILENCE + received / BODY_PACE:",
                "if False:",
                (f"{BOUNDS}a_body_has_a_pace",),
            ),
            Mutation(
                "daemon/web/server.py",
                "if self._open[host] >= self._per_address and not self._is_proxy(host):",
                "if False:",
                (f"{ROUTES}connections_of_one_address_are_bounded",),
            ),
            Mutation(
                "daemon/web/server.py",
                " and not self._is_proxy(host):",
                ":",
                (f"{BOUNDS}a_proxy_may_hold_as_many_connections_as_it_likes",),
            ),
            Mutation(
                "daemon/web/bounds.py",
                "if taken + size > (BODIES * bounds.max_body if self._known else OTHER_BODIES):",
                "if False:",
                (f"{BOUNDS}large_bodies_share_a_bounded_memory",),
            ),
            Mutation(
                "daemon/web/bounds.py",
                "isinstance(self.inner, InferenceRequest) and self.inner.unwelcome()",
                "False",
                (f"{BOUNDS}a_body_without_a_credential_is_not_read_to_its_end",),
            ),
        ),
        "500 at once against the real deadlines: all closed after 9.1 s; 2,983 good chats answered meanwhile"
        " (`pytest -m long -s tests/test_gate_bounds.py`); resident memory of a daemon: 53 MiB idle, 87 under 900 half"
        " heads of 32,000 bytes, 590 while 60 clients send 32 MB each (16 are read, 44 get 503), no more a second time",
    ),
    Row(
        "H3",
        "A slow reader costs at most 1 MiB; a stalled write of more than 30 s ends the exchange and is recorded.",
        (
            f"{BOUNDS}a_slow_reader_costs_at_most_a_mebibyte",
            f"{BOUNDS}a_stalled_client_ends_its_exchange_and_is_recorded",
            f"{BOUNDS}a_whole_answer_that_nobody_takes_ends_with_the_connection",
            "tests/test_gate_way.py::test_a_slow_client_slows_the_upstream_and_costs_little_memory",
            f"{CARRYING}a_slow_reader_gets_every_byte_in_order",
        ),
        (
            Mutation(
                "daemon/relay.py",
                "async with asyncio.timeout(STALLED_CLIENT):",
                "async with asyncio.timeout(None):",
                (f"{BOUNDS}a_stalled_client_ends_its_exchange_and_is_recorded",),
            ),
            Mutation(
                "daemon/web/bounds.py",
                "if stream.writing() and self._still(stream.taken, now) >= STALLED:",
                "if False:",
                (f"{BOUNDS}a_whole_answer_that_nobody_takes_ends_with_the_connection",),
            ),
            Mutation(
                "daemon/providers/connection.py",
                "if response._unread > UNREAD_LIMIT and not self._paused:",
                "if False:",
                (f"{BOUNDS}a_slow_reader_costs_at_most_a_mebibyte",),
            ),
        ),
        "an answer of 26 MB that nobody reads: 339,056 bytes of it held (255,973 unread, 83,083 unsent)",
    ),
    Row(
        "H4",
        "A client that leaves in the queue, in prefill or in mid-stream: the upstream sees the close within 250 ms, the"
        " seat is free; also where it had sent more than its request.",
        (
            "tests/test_gate_departures.py::test_leaving_in_the_queue_gives_the_place_up",
            "tests/test_gate_departures.py::test_leaving_during_prefill_frees_the_gpu",
            "tests/test_gate_departures.py::test_leaving_in_mid_stream_frees_the_gpu",
            "tests/test_gate_departures.py::test_two_hundred_departures_leave_nothing_behind",
            f"{BOUNDS}who_sends_more_and_leaves_is_seen_to_leave",
            f"{BOUNDS}two_hundred_departures_are_noticed_at_once",
        ),
        (
            Mutation(
                "daemon/web/connection.py",
                "if self._read_buffer_size and not self._closed:",
                "if False:",
                (f"{BOUNDS}who_sends_more_and_leaves_is_seen_to_leave",),
            ),
            Mutation(
                "daemon/web/inference.py",
                "            self._visit.left()",
                "            pass",
                ("tests/test_gate_departures.py::test_leaving_during_prefill_frees_the_gpu",),
            ),
            Mutation(
                "daemon/providers/connection.py",
                "        else:\n            self._connection.abort()",
                "        else:\n            pass",
                (f"{POOL}leaving_the_block_closes_the_connection_at_once",),
            ),
        ),
        "200 of 200 in line, in prefill and in mid-stream: median 0.5 to 1.0 ms, longest 2.7 ms"
        " (`pytest -m long -s tests/test_gate_bounds.py`)",
    ),
    Row(
        "H5",
        "An upstream that half-closes, resets, talks garbage or without end, or tells a wrong length: 502 or an"
        " explicit error in the stream, never a truncation that looks whole; a dead pooled connection costs one retry.",
        (
            f"{FAILURES}failing_before_the_first_byte_is_502",
            f"{FAILURES}failing_in_mid_stream_is_an_explicit_last_line",
            f"{FAILURES}a_cut_answer_is_never_assembled_into_a_whole_one",
            f"{FAILURES}a_stream_that_ends_without_its_end_is_an_error",
            f"{FAILURES}an_endless_line_ends_the_exchange",
            f"{FAILURES}a_wrong_length_is_an_error",
            f"{POOL}a_broken_answer_is_an_error_never_an_end",
            f"{POOL}framing_is_bounded_however_it_is_cut",
            f"{POOL}more_than_the_announced_length_is_an_error_and_never_the_next_answer",
            f"{POOL}a_dead_pooled_connection_costs_one_retry_on_a_fresh_one",
            f"{POOL}once_a_byte_was_answered_nothing_is_sent_twice",
            "tests/test_dialects_lines.py::test_an_endless_line_is_an_error_and_not_a_full_memory",
            f"{FUZZ}[response]",
        ),
        (
            Mutation(
                "daemon/providers/connection.py",
                "elif self._until_close and exc is None and response.begun and not self._tls:",
                "elif exc is None and response.begun:",
                (f"{POOL}a_broken_answer_is_an_error_never_an_end",),
            ),
            Mutation(
                "daemon/providers/connection.py",
                'self._refuse("more came than its length announced")',
                "pass",
                (f"{POOL}more_than_the_announced_length_is_an_error_and_never_the_next_answer",),
            ),
            Mutation(
                "daemon/providers/connection.py",
                "if self._overhead > OVERHEAD_LIMIT:\n                self._broken",
                "if False:\n                self._broken",
                (f"{POOL}framing_is_bounded_however_it_is_cut",),
            ),
            Mutation(
                "daemon/dialects/lines.py",
                "        self._size += len(data)\n        if self._size > self._limit:",
                "        self._size += len(data)\n        if False:",
                ("tests/test_dialects_lines.py::test_an_endless_line_is_an_error_and_not_a_full_memory",),
            ),
            Mutation(
                "daemon/dialects/ollama.py",
                'raise UpstreamTruncated("the upstream\'s answer ended before its last line")',
                "pass",
                (f"{FAILURES}a_stream_that_ends_without_its_end_is_an_error",),
            ),
            Mutation(
                "daemon/providers/http.py",
                "if self._response.answered or not replayable:",
                "if not replayable:",
                (f"{POOL}once_a_byte_was_answered_nothing_is_sent_twice",),
            ),
        ),
        "11 ways to break, before the first byte and after it, streamed and not; the reader of answers fuzzed:"
        " 57,880 inputs in 40 s, no find left (`python -m tests.fuzz`)",
    ),
    Row(
        "H6",
        "A request body is JSON that can be read in one way only: JSONTestSuite, no key twice, none in two spellings,"
        " depth at most 64, UTF-8.",
        (
            f"{JSON}the_whole_suite_is_here",
            f"{JSON}what_is_not_json_is_refused",
            f"{JSON}what_is_json_is_read",
            f"{JSON}a_key_that_stands_twice_is_refused_wherever_it_stands",
            f"{JSON}every_document_with_a_duplicate_is_refused",
            f"{JSON}keys_that_differ_only_in_case_are_refused",
            f"{JSON}a_lone_key_in_another_case_gets_its_own_spelling",
            f"{JSON}depth_is_bounded",
            f"{JSON}a_body_of_too_many_values_is_refused_before_it_is_read",
            f"{JSON}a_body_of_too_many_objects_and_lists_is_refused_before_it_is_read",
            f"{JSON}escapes_are_bounded_where_each_is_looked_for",
            "tests/test_gate_limits.py::test_a_full_window_is_told_before_a_large_body_is_read",
            f"{ROUTES}bad_bodies_are_400_in_words_and_go_nowhere",
            f"{FUZZ}[json]",
        ),
        (
            Mutation(
                "daemon/dialects/strict_json.py",
                'if body.count(b":") + _escaped_colons(body) != keys + colons:',
                "if False:",
                (f"{JSON}a_key_that_stands_twice_is_refused_wherever_it_stands",),
            ),
            Mutation(
                "daemon/dialects/strict_json.py",
                "if len(folded) != len(document):",
                "if False:",
                (f"{JSON}keys_that_differ_only_in_case_are_refused",),
            ),
            Mutation(
                "daemon/dialects/strict_json.py",
                "for _ in range(MAX_DEPTH):",
                "for _ in range(10**6):",
                (f"{JSON}depth_is_bounded",),
            ),
            Mutation(
                "daemon/dialects/strict_json.py",
                "if _marks(bare) > MAX_VALUES:",
                "if False:",
                (f"{JSON}a_body_of_too_many_values_is_refused_before_it_is_read",),
            ),
            Mutation(
                "daemon/dialects/strict_json.py",
                "if _containers(bare) > MAX_CONTAINERS:",
                "if False:",
                (f"{JSON}a_body_of_too_many_objects_and_lists_is_refused_before_it_is_read",),
            ),
            Mutation(
                "daemon/dialects/strict_json.py",
                "if written > MAX_ESCAPED_COLONS:",
                "if False:",
                (f"{JSON}escapes_are_bounded_where_each_is_looked_for",),
            ),
            Mutation(
                "daemon/web/inference.py",
                "            house.gate.foresee(caller, visit)\n",
                "            pass\n",
                ("tests/test_gate_limits.py::test_a_full_window_is_told_before_a_large_body_is_read",),
            ),
        ),
        "318 files of JSONTestSuite: 188 of 188 n_ refused, 93 of 95 y_ read (the other two have a key twice);"
        " 3,275,523 fuzzed inputs in 40 s, no find",
    ),
    Row(
        "H7",
        "Deny by default: only the listed routes reach an upstream; nothing of a client's headers is forwarded, no"
        " redirect followed; models that leave the LAN are refused.",
        (
            f"{ROUTES}of_ollamas_routes_only_the_listed_ones_reach_it",
            f"{ROUTES}what_is_not_listed_never_reaches_an_upstream",
            f"{ROUTES}without_a_credential_nothing_but_the_open_routes_answers",
            f"{ROUTES}model_commands_are_for_administrators_and_recorded",
            f"{ROUTES}models_that_leave_the_lan_are_refused_and_hidden",
            "tests/test_gate_way.py::test_credentials_cookies_and_origins_stay_at_the_gate",
            f"{POOL}redirects_are_answers_not_orders",
        ),
        (
            Mutation(
                "daemon/web/routes.py",
                r'(r"/api/blobs/(sha256[:-][0-9a-f]{64})", ollama_admin.Blob)',
                r'(r"/api/blobs/(.*)", ollama_admin.Blob)',
                (f"{ROUTES}of_ollamas_routes_only_the_listed_ones_reach_it",),
            ),
            Mutation(
                "daemon/web/base.py",
                'if caller.user.role != "admin":',
                "if False:",
                (f"{ROUTES}model_commands_are_for_administrators_and_recorded",),
            ),
            Mutation(
                "daemon/providers/ollama.py",
                'return bool(entry.get("remote_host")) or bool(entry.get("remote_model")) or is_remote_name',
                "return False and is_remote_name",
                (f"{ROUTES}models_that_leave_the_lan_are_refused_and_hidden",),
            ),
            Mutation(
                "daemon/web/base.py",
                "        self.caller()\n        raise NotFound",
                "        raise NotFound",
                (f"{ROUTES}without_a_credential_nothing_but_the_open_routes_answers",),
            ),
        ),
        "31 routes and methods of Ollama's server asked by an administrator: 11 reach it, 20 do not",
    ),
    Row(
        "H8",
        "A Host outside `server.allowed_hosts`, where set, is 421; no browser origin is allowed unless configured.",
        (
            f"{ROUTES}a_foreign_host_is_421_where_hosts_are_named",
            f"{ROUTES}browsers_get_nothing_unless_their_origin_is_allowed",
            f"{CARRYING}a_foreign_host_and_a_stopping_gate_are_refused",
            f"{CARRYING}a_page_of_an_allowed_origin_may_read_answers_and_errors",
        ),
        (
            Mutation(
                "daemon/web/base.py",
                "if host not in allowed:",
                "if False:",
                (f"{ROUTES}a_foreign_host_is_421_where_hosts_are_named",),
            ),
            Mutation(
                "daemon/web/base.py",
                "if origin is None or origin not in house.config.server.cors_origins:",
                "if origin is None:",
                (f"{ROUTES}browsers_get_nothing_unless_their_origin_is_allowed",),
            ),
        ),
        "inference and other routes, preflights, answers and errors: 4 tests",
    ),
    Row(
        "H9",
        "X-Forwarded-For counts only from a configured proxy, and then the last address that is not one.",
        (f"{ROUTES}the_forwarded_address_counts_only_from_a_configured_proxy",),
        (
            Mutation("daemon/web/base.py", "if not proxies or not _within(address, proxies):", "if False:"),
            Mutation("daemon/web/base.py", "for hop in reversed(hops):", "for hop in hops:"),
        ),
        "a forged first hop and a real second one: the second is recorded behind a proxy, neither without",
    ),
    Row(
        "H10",
        "A compressed request body is 415: nothing is unpacked.",
        (f"{ROUTES}a_compressed_body_is_415", SMUGGLING),
        (
            Mutation(
                "daemon/web/heads.py",
                'if "Content-Encoding" in headers and headers["Content-Encoding"].lower() != "identity":',
                "if False:",
                (f"{ROUTES}a_compressed_body_is_415",),
            ),
        ),
        "gzip, and gzip behind identity: 2 payloads of the smuggling corpus besides",
    ),
)
