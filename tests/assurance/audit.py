"""A: the audit, what it promises and what a crash or a power cut leaves of it. A7 and A8 stand in `keeping.py`."""

from __future__ import annotations

from tests.assurance.rows import Mutation, Row

WAY = "tests/test_gate_way.py"
JOURNAL = "tests/test_audit_journal.py"
STORE = "tests/test_store_database.py"
EXAMINING = "tests/test_store_examining.py"
UNRECORDABLE = "tests/test_gate_unrecordable.py"
GATE_CRASH = "tests/test_gate_crash.py"
CRASH = "tests/test_audit_crash.py"
POWER = "tests/test_audit_power.py"
VERIFY = "tests/test_audit_verify.py"
SEGMENTS = "tests/test_gate_segments.py"
STATEFUL = "tests/test_audit_stateful.py"

ROWS = (
    Row(
        "A1",
        "no byte goes upstream, none to the client, before the commit that covers the request's opening record; the end"
        " of an answer leaves after the commit of its closing record",
        (
            f"{WAY}::test_nothing_goes_upstream_before_the_request_is_on_disk",
            f"{JOURNAL}::test_an_opened_request_is_in_the_file_when_opened_returns",
            f"{WAY}::test_the_end_leaves_after_the_closing_commit",
            f"{WAY}::test_an_unstreamed_answer_waits_for_the_closing_commit_as_a_whole",
        ),
        (
            Mutation(
                "daemon/relay.py",
                "await self._journal.opened(exchange)",
                "self._unawaited = asyncio.ensure_future(self._journal.opened(exchange))",
                (f"{WAY}::test_nothing_goes_upstream_before_the_request_is_on_disk",),
            ),
            Mutation(
                "daemon/audit/journal.py",
                "await _until_done(opening, self._patience - (time.monotonic() - started))",
                "exchange.seq = 1\n        return",
                (f"{JOURNAL}::test_an_opened_request_is_in_the_file_when_opened_returns",),
            ),
        ),
        "0 requests upstream while the writer was held, in every run; the opening record is read back from the file by"
        " a second connection",
    ),
    Row(
        "A2",
        "journal failing, stalled for more than 2 s, or its queue full (1,000 events or 64 MiB): 503 with Retry-After,"
        " no upstream connection",
        (
            f"{UNRECORDABLE}::test_what_cannot_be_recorded_is_refused_and_goes_nowhere",
            f"{UNRECORDABLE}::test_the_bounds_are_those_that_are_promised",
            f"{JOURNAL}::test_a_failing_journal_refuses",
            f"{JOURNAL}::test_a_stalled_journal_refuses_and_a_late_record_is_closed_at_once",
            f"{STORE}::test_the_queue_is_bounded_in_jobs_and_bytes",
            f"{STORE}::test_after_a_failed_fsync_nothing_is_acknowledged_any_more",
            f"{STORE}::test_damage_met_while_writing_stops_all_writing",
        ),
        (
            Mutation(
                "daemon/relay.py",
                "await self._journal.opened(exchange)",
                "self._unawaited = asyncio.ensure_future(self._journal.opened(exchange))",
                (f"{UNRECORDABLE}::test_what_cannot_be_recorded_is_refused_and_goes_nowhere",),
            ),
            Mutation(
                "daemon/audit/journal.py",
                "PATIENCE = 2.0 ",
                "PATIENCE = 20.0 ",
                (f"{UNRECORDABLE}::test_the_bounds_are_those_that_are_promised",),
            ),
            Mutation(
                "daemon/store/database.py",
                "self._pending_jobs >= QUEUED_JOBS or",
                "False or",
                (f"{STORE}::test_the_queue_is_bounded_in_jobs_and_bytes",),
            ),
            Mutation(
                "daemon/store/database.py",
                "elif is_damage(cause):",
                "elif False:",
                (f"{STORE}::test_damage_met_while_writing_stops_all_writing",),
            ),
        ),
        "4 kinds of trouble through the whole gate: 4 times 503 with Retry-After, 0 connections to the upstream, and"
        " the next request is served",
    ),
    Row(
        "A3",
        "what recording adds to the time to the first token: p50 within 2 ms, p99 within 25 ms at 50 at once (measured"
        " by the bench; the tests hold what it rests on: one commit for all who wait, large bodies beside the writer)",
        (
            f"{STORE}::test_jobs_that_wait_together_share_one_commit",
            f"{JOURNAL}::test_large_bodies_are_prepared_beside_the_writer",
        ),
        (
            Mutation(
                "daemon/store/database.py",
                "batch, self._waiting = self._waiting, []",
                "batch, self._waiting = self._waiting[:1], self._waiting[1:]",
                (f"{STORE}::test_jobs_that_wait_together_share_one_commit",),
            ),
            Mutation(
                "daemon/audit/journal.py",
                "if size >= LARGE:",
                "if False:",
                (f"{JOURNAL}::test_large_bodies_are_prepared_beside_the_writer",),
            ),
        ),
        "50 exchanges under way: p50 0.73 ms, p99 15 ms (python -m tests.bench.journal, a shared disk at load 3.5;"
        " quiet 0.66 and 12 ms, at load 6 3.2 and 21 ms)",
    ),
    Row(
        "A4",
        "kill -9 at random points: every acknowledged admitted request is there, integrity_check ok, exactly one end"
        " each; open ones become crashed (the ledger comes with its issue)",
        (
            f"{CRASH}::test_ten_kills_lose_nothing_that_was_acknowledged",
            f"{CRASH}::test_a_thousand_kills_lose_nothing_that_was_acknowledged",
            f"{GATE_CRASH}::test_ten_kills_lose_nothing_that_was_acknowledged",
            f"{GATE_CRASH}::test_the_window_survives_kill_minus_nine",
            f"{JOURNAL}::test_what_was_open_is_crashed_after_a_restart",
            f"{STATEFUL}::TestJournal",
        ),
        (
            Mutation(
                "daemon/app.py",
                "await journal.recover()",
                "pass",
                (f"{GATE_CRASH}::test_the_window_survives_kill_minus_nine",),
            ),
            Mutation(
                "daemon/audit/journal.py",
                "    if record.opened_seq is None:\n        return\n",
                "",
                (f"{JOURNAL}::test_an_exchange_is_closed_once",),
            ),
            Mutation(
                "daemon/store/examining.py",
                "if commits > TORN:",
                "if False:",
                (f"{EXAMINING}::test_what_is_not_right_is_refused_and_left_as_it_lies",),
            ),
        ),
        "300 of 300 kills lost nothing: 28,700 exchanges, 1,950 of them crashed, each with one end"
        " (KILLS=300 pytest -m long tests/test_audit_crash.py); 10 in every run; 12 runs of the stateful model in every"
        " run, 300 of 50 steps in the long form",
    ),
    Row(
        "A5",
        "a power cut loses nothing that was acknowledged, and the control with synchronous=NORMAL does lose rows, or"
        " the rig would be blind",
        (
            f"{POWER}::test_a_power_cut_loses_nothing_that_was_acknowledged",
            f"{POWER}::test_a_second_power_cut_after_the_first_loses_nothing_either",
            f"{POWER}::test_the_rig_sees_the_loss_where_sqlite_syncs_less",
            f"{POWER}::test_two_hundred_power_cuts_lose_nothing_that_was_acknowledged",
            f"{STORE}::test_a_new_database_is_found_after_a_power_cut",
        ),
        (
            Mutation(
                "daemon/store/opening.py",
                'conn.execute("PRAGMA synchronous = FULL")\n'
                '    (synchronous,) = conn.execute("PRAGMA synchronous").fetchone()',
                'conn.execute("PRAGMA synchronous = NORMAL")\n    synchronous = 2',
                (f"{POWER}::test_a_power_cut_loses_nothing_that_was_acknowledged",),
            ),
            Mutation(
                "daemon/store/opening.py",
                "            sync_folder(folder.parent)\n",
                "            pass\n",
                (f"{STORE}::test_a_new_database_is_found_after_a_power_cut",),
            ),
        ),
        "FULL: 200 of 200 cuts lost nothing, nor did 200 of 200 second cuts on what the first left; NORMAL: 82 of 200"
        " lost acknowledged exchanges (pytest -s -m long tests/test_audit_power.py); 16, 12 and 24 in every run",
    ),
    Row(
        "A6",
        "audit verify finds every mutation in the sealed range (flip, delete, insert, swap, truncation, re-chaining,"
        " sealing anew); checkpoints are signed, every 1,000 records or 60 s, and told to the log; --expect finds a"
        " truncation that took them along; exit 0 intact, 1 not",
        (
            f"{VERIFY}::test_every_change_in_the_sealed_range_is_found",
            f"{VERIFY}::test_every_one_of_many_changes_is_found",
            f"{VERIFY}::test_rechaining_alone_is_found_by_the_next_checkpoint",
            f"{VERIFY}::test_a_truncation_that_took_its_checkpoints_along_is_found_by_expect",
            f"{VERIFY}::test_a_foreign_key_signs_nothing",
            f"{VERIFY}::test_behind_the_last_checkpoint_a_change_is_found_unless_the_chain_was_made_anew",
            f"{JOURNAL}::test_the_chain_is_sealed_a_minute_after_the_oldest_unsealed_record",
            f"{JOURNAL}::test_a_thousand_records_are_sealed_without_waiting_for_the_minute",
            "tests/test_cli_commands.py::test_verify_says_intact_and_exits_with_what_it_found",
        ),
        (
            Mutation(
                "daemon/audit/verify.py",
                "if not self._follows(columns, stored):",
                "if False:",
                (f"{VERIFY}::test_each_break_is_told_once",),
            ),
            Mutation(
                "daemon/audit/verify.py",
                "elif self.hashes[seq] != hash_:",
                "elif False:",
                (f"{VERIFY}::test_rechaining_alone_is_found_by_the_next_checkpoint",),
            ),
            Mutation(
                "daemon/audit/verify.py",
                "return self._has_types(columns) and ",
                "return ",
                (f"{VERIFY}::test_a_value_of_another_type_that_json_writes_alike_is_found",),
            ),
            Mutation(
                "daemon/audit/verify.py",
                "if commitment(part.salt, text) != part.commitment:",
                "if False:",
                (f"{VERIFY}::test_every_change_in_the_sealed_range_is_found",),
            ),
            Mutation(
                "daemon/audit/journal.py",
                'log.info("audit checkpoint %d:%s signed by %s", sealed.seq, sealed.hash.hex(), sealed.kid)',
                "pass",
                (f"{JOURNAL}::test_the_chain_is_sealed_a_minute_after_the_oldest_unsealed_record",),
            ),
        ),
        "10,000 of 10,000 mutations found (pytest -m long tests/test_audit_verify.py, 71 s), 250 in every run; verify"
        " of 100,000 records with bodies of 4 KiB: 6.3 s at load 3.5 (python -m tests.bench.journal, from 6,280;"
        " 4.8 s quiet, 15 s at load 6.6)",
    ),
    Row(
        "A9",
        "a running answer, streamed or not, is set down in segments of at most 64 KiB or 1 s, so that a crash loses at"
        " most the last of them; the record of a crashed exchange tells when it was seated and first answered",
        (
            f"{SEGMENTS}::test_a_crash_keeps_what_an_answer_had_a_second_ago",
            f"{SEGMENTS}::test_64_kib_are_set_down_without_waiting_for_the_second",
            f"{SEGMENTS}::test_a_crash_in_prefill_keeps_when_it_was_seated",
            f"{SEGMENTS}::test_an_unstreamed_answer_that_is_cut_is_recorded_once",
            f"{JOURNAL}::test_segments_that_could_not_be_set_down_are_in_the_answer_all_the_same",
        ),
        (
            Mutation(
                "daemon/underway.py",
                "return self.translator.gained()",
                'return b""',
                (f"{SEGMENTS}::test_a_crash_keeps_what_an_answer_had_a_second_ago",),
            ),
            Mutation(
                "daemon/relay.py",
                "self._grew(running, len(piece))\n",
                "pass\n",
                (f"{SEGMENTS}::test_64_kib_are_set_down_without_waiting_for_the_second[streamed]",),
            ),
            Mutation(
                "daemon/audit/journal.py",
                "segments = end.segments if end.whole else [*set_down, *end.segments]",
                "segments = [*set_down, *end.segments]",
                (f"{SEGMENTS}::test_an_unstreamed_answer_that_is_cut_is_recorded_once",),
            ),
            Mutation(
                "daemon/audit/journal.py",
                "keep_progress(conn, each)",
                "pass",
                (f"{SEGMENTS}::test_a_crash_in_prefill_keeps_when_it_was_seated",),
            ),
        ),
        "2 dialects, streamed and whole: what came is in the store within the second, and the crashed record has it,"
        " with seat and first byte",
    ),
    Row(
        "A10",
        "the start refuses a database on a network file system, synchronous other than FULL, and a database or log that"
        " is damaged, cut, exchanged or too new; nothing is overwritten",
        (
            f"{STORE}::test_a_network_file_system_is_refused",
            f"{STORE}::test_less_than_full_synchronous_is_refused",
            f"{STORE}::test_the_writer_is_fully_synchronous_and_logs_ahead",
            f"{EXAMINING}::test_what_is_not_right_is_refused_and_left_as_it_lies",
            f"{EXAMINING}::test_the_log_of_another_database_is_refused",
            f"{EXAMINING}::test_damage_that_the_start_meets_later_is_one_line_too",
        ),
        (
            Mutation(
                "daemon/store/opening.py",
                "if is_network(kind):",
                "if False:",
                (f"{STORE}::test_a_network_file_system_is_refused",),
            ),
            Mutation(
                "daemon/store/database.py",
                'if synchronous.upper() != "FULL":',
                "if False:",
                (f"{STORE}::test_less_than_full_synchronous_is_refused",),
            ),
            Mutation(
                "daemon/store/database.py",
                "        examine(path)\n",
                "",
                (f"{EXAMINING}::test_what_is_not_right_is_refused_and_left_as_it_lies",),
            ),
            Mutation(
                "daemon/store/examining.py",
                "if id_ and with_log != id_:",
                "if False:",
                (f"{EXAMINING}::test_the_log_of_another_database_is_refused",),
            ),
        ),
        "18 file systems and 10 kinds of FUSE by name; 8 kinds of damage and another's log: 9 refusals of one line"
        " each, 0 bytes changed",
    ),
)
