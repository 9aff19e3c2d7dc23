"""A7 and A8: what is erased, and a full disk."""

from __future__ import annotations

from tests.assurance.rows import Mutation, Row

EXPORT = "tests/test_jobs_export.py"
RETENTION = "tests/test_jobs_retention.py"
FULL = "tests/test_gate_full_disk.py"

ROWS = (
    Row(
        "A7",
        "retention erases only what a verified export (fsynced, renamed, re-read) contains",
        (
            f"{RETENTION}::test_what_is_old_is_in_the_file_and_nowhere_else_and_the_chain_is_whole",
            f"{RETENTION}::test_nothing_is_erased_that_no_verified_export_holds",
            f"{RETENTION}::test_a_text_that_a_retained_exchange_has_too_lives_on",
            f"{RETENTION}::test_what_is_sent_again_while_retention_erases_is_kept",
            f"{RETENTION}::test_what_runs_and_what_came_later_is_not_touched",
            f"{RETENTION}::test_where_the_export_fails_nothing_is_erased",
            f"{RETENTION}::test_a_crash_between_the_steps_is_safe",
            f"{RETENTION}::test_what_an_administrator_exported_before_can_be_erased_without_a_file",
            f"{RETENTION}::test_bodies_that_go_without_retention_are_found",
            f"{RETENTION}::test_a_record_of_retention_that_is_not_sealed_excuses_nothing",
            f"{EXPORT}::test_a_disk_that_gives_back_something_else_is_found_out",
        ),
        (
            Mutation(  # what is read back is not compared
                "common/files.py",
                "if digest != written.hexdigest():",
                "if False:",
                (f"{EXPORT}::test_a_disk_that_gives_back_something_else_is_found_out",),
            ),
            Mutation(  # a rule without its registered export
                "daemon/store/retention.py",
                """    if row is None:
        raise LookupError(f"there is no verified export {export.id} of everybody's exchanges")
    through, until_us = row""",
                "    through, until_us = row or (export.through_seq, export.until_us)",
                (f"{RETENTION}::test_nothing_is_erased_that_no_verified_export_holds",),
            ),
            Mutation(  # CSV, which has no thinking and no tool calls, would do
                "daemon/store/exports.py",
                """ AND format = 'jsonl' AND""",
                " AND",
                (f"{RETENTION}::test_what_an_administrator_exported_before_can_be_erased_without_a_file",),
            ),
            Mutation(  # what the export did not see the end of
                "daemon/store/retention.py",
                "return received_us < self.before_us and closed_seq <= self.through_seq",
                "return received_us < self.before_us",
                (f"{RETENTION}::test_what_an_administrator_exported_before_can_be_erased_without_a_file",),
            ),
            Mutation(  # parts that a retained record has in common with an erased one
                "daemon/jobs/planning.py",
                "covered[n] &= ~byte",
                "pass",
                (f"{RETENTION}::test_a_text_that_a_retained_exchange_has_too_lives_on",),
            ),
            Mutation(  # parts that a request refers to that came in meanwhile
                "daemon/store/retention.py",
                "doomed = [id_ for id_ in ids if id_ not in live.ids]",
                "doomed = list(ids)",
                (f"{RETENTION}::test_what_is_sent_again_while_retention_erases_is_kept",),
            ),
            Mutation(  # verify takes any erased part for retention's
                "daemon/audit/verify.py",
                "if self.retention and not self.retained[part.id >> 3] & 1 << (part.id & 7):",
                "if self.retention:",
                (f"{RETENTION}::test_bodies_that_go_without_retention_are_found",),
            ),
            Mutation(  # an unsealed record excuses
                "daemon/audit/verify.py",
                "if by_retention and unsealed:",
                "if False:",
                (f"{RETENTION}::test_a_record_of_retention_that_is_not_sealed_excuses_nothing",),
            ),
        ),
        "10,000 exchanges exported, read back and erased in 4.5 s, the file shrinks from 33.8 to 7.8 MB; meanwhile"
        " others' commits p50 0.4 ms, p99 8.3 ms (python -m tests.bench.keeping); killed at 4 points: no body lost,"
        " none left behind by the next one",
    ),
    Row(
        "A8",
        "admission stops below `min_free` (default 1 GiB) free disk; export to standard output or another file system,"
        " and retention of what it verified, still work on the full disk",
        (
            "tests/test_gate_disk.py::test_below_min_free_nothing_is_admitted_and_the_words_say_why",
            f"{FULL}::test_a_disk_that_is_really_full",
            f"{FULL}::test_the_reserve_is_real_is_given_up_at_the_first_failure_and_taken_again",
            f"{FULL}::test_a_write_without_room_is_told_to_whoever_can_make_some",
            f"{FULL}::test_retention_goes_on_once_the_reserve_is_given_up",
            f"{FULL}::test_the_forecast_is_that_of_the_last_days_and_survives_a_restart",
            f"{RETENTION}::test_the_file_gets_smaller_in_short_steps",
        ),
        (
            Mutation(
                "daemon/disk.py",
                """        if self._free < self.min_free or self._is_full:
            raise""",
                """        if False:
            raise""",
                ("tests/test_gate_disk.py::test_below_min_free_nothing_is_admitted_and_the_words_say_why",),
            ),
            Mutation(  # the reserve stays where it is
                "daemon/disk.py",
                """        self._is_full = True
        self._ballast.release()""",
                "        self._is_full = True",
                (f"{FULL}::test_the_reserve_is_real_is_given_up_at_the_first_failure_and_taken_again",),
            ),
            Mutation(  # nobody is told of the full disk
                "daemon/store/database.py",
                "            self.when_full()",
                "            pass",
                (f"{FULL}::test_a_write_without_room_is_told_to_whoever_can_make_some",),
            ),
            Mutation(  # a step that found no room is the last one
                "daemon/jobs/retaining.py",
                "if not last or self._database.trouble:",
                "if True:",
                (f"{FULL}::test_retention_goes_on_once_the_reserve_is_given_up",),
            ),
            Mutation(  # what is erased stays in the file
                "daemon/store/opening.py",
                '    conn.execute("PRAGMA auto_vacuum = INCREMENTAL")\n',
                "",
                (f"{RETENTION}::test_the_file_gets_smaller_in_short_steps",),
            ),
        ),
        "a tmpfs of 32 MiB filled to the last block: an export to it fails and leaves no file; retention of one that"
        " was verified elsewhere shrinks the database from 4.5 to 0.3 MB with a reserve of 2 MiB, and requests are"
        " admitted again (tests/rigs/full_disk.py keeping)",
    ),
)
