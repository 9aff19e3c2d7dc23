"""R: limits and fairness (R5 and R6 come with the fair queue), and H11, which is a matter of the reload."""

from __future__ import annotations

from tests.assurance.rows import Mutation, Row

WINDOWS = "tests/test_traffic_windows.py"
ADMISSION = "tests/test_traffic_admission.py"
RESTORE = "tests/test_traffic_restore.py"
GATE = "tests/test_gate_limits.py"
CLOCK = "tests/test_gate_clock.py"
CRASH = "tests/test_gate_crash.py"
ENDS = "tests/test_gate_ends.py"
RELOAD = "tests/test_gate_reload.py"

ROWS = (
    Row(
        "R1",
        "windows decide as a list of everything that ever happened does, at the very boundary too;"
        " 64 at once against a"
        " limit of 50 admit exactly 50",
        (
            f"{WINDOWS}::TestWindowsAgainstOracle::runTest",
            f"{WINDOWS}::test_an_entry_is_out_exactly_one_period_later",
            f"{WINDOWS}::test_no_window_anywhere_holds_more_than_its_maximum",
            f"{ADMISSION}::TestAdmissionAgainstOracle::runTest",
            f"{ADMISSION}::test_deciding_and_charging_is_one_step_without_an_await",
            f"{GATE}::test_sixty_four_at_once_against_fifty_admit_fifty",
            f"{ENDS}::TestEnds::runTest",
        ),
        (
            Mutation(
                "daemon/traffic/windows.py",
                "return len(times) - bisect_right(times, after, first)",
                "return len(times) - bisect_left(times, after, first)",
                (f"{WINDOWS}::test_an_entry_is_out_exactly_one_period_later",),
            ),
            Mutation(
                "daemon/traffic/windows.py",
                "return history.used(now - self.period) < self.max",
                "return history.used(now - self.period) <= self.max",
                (f"{GATE}::test_sixty_four_at_once_against_fifty_admit_fifty",),
            ),
            Mutation(
                "daemon/traffic/admission.py",
                "        self._tallies.charge(rules, now, now=now)\n",
                "",
                (f"{GATE}::test_sixty_four_at_once_against_fifty_admit_fifty",),
            ),
            Mutation(
                "daemon/relay.py",
                "            self._admission.give_back(running.ticket)\n",
                "            pass\n",
                (f"{ENDS}::TestEnds::runTest",),
            ),
        ),
        "no mismatch in 150 x 40 steps of the windows and 120 x 40 of admission with restarts, each"
        " against a brute-force"
        " oracle; 64 at once through the gate: 50 answered, 14 refused; 3,000 x 25 steps of"
        " exchanges that end in every"
        " order (116 s on two cores): memory as the journal says each time",
    ),
    Row(
        "R2",
        "a wall clock that steps a day decides nothing: windows, waits and restarts go by the time since the boot; no"
        " token lives longer by it",
        (
            f"{CLOCK}::test_a_stepped_wall_clock_decides_nothing",
            f"{CLOCK}::test_a_token_that_was_seen_before_is_from_the_future_as_well",
            f"{ADMISSION}::test_the_wall_clock_decides_nothing",
            f"{RESTORE}::test_the_same_boot_counts_on_whatever_the_wall_clock_does",
            f"{RESTORE}::test_a_reboot_counts_the_downtime",
            f"{RESTORE}::test_a_reboot_with_the_wall_clock_set_back_counts_the_downtime_as_nothing",
        ),
        (
            Mutation(
                "daemon/clock.py",
                "        return _boottime() + self.offset\n",
                "        return _wall() + self.offset\n",
                (f"{RESTORE}::test_the_same_boot_counts_on_whatever_the_wall_clock_does",),
            ),
            Mutation(
                "daemon/clock.py",
                "downtime = max(0, _wall() - last.wall)",
                "downtime = _wall() - last.wall",
                (f"{RESTORE}::test_a_reboot_with_the_wall_clock_set_back_counts_the_downtime_as_nothing",),
            ),
            Mutation(
                "daemon/access/identity.py",
                "not claims.good_at(self._clock.wall() // MICROSECONDS)",
                "claims.exp <= self._clock.wall() // MICROSECONDS",
                (f"{CLOCK}::test_a_token_that_was_seen_before_is_from_the_future_as_well",),
            ),
        ),
        "a daemon under libfaketime, stepped by +1, -1 and +400 days and back, and restarted a day"
        " ahead: five times 429"
        " with the same wait, to the minute the test may take",
    ),
    Row(
        "R3",
        "a window survives kill -9: of the requests admitted within it never more than N are forwarded",
        (
            f"{RESTORE}::test_a_window_survives_kill_9",
            f"{CRASH}::test_the_window_survives_kill_minus_nine",
            f"{GATE}::test_a_window_survives_a_restart",
            f"{ADMISSION}::TestAdmissionAgainstOracle::runTest",
        ),
        (
            Mutation(
                "daemon/app.py",
                "    await restore(admission, limits, database, clock)\n",
                "    await asyncio.sleep(0)\n",
                (f"{GATE}::test_a_window_survives_a_restart",),
            ),
            Mutation(
                "daemon/store/admissions.py",
                "c.seq IS NULL OR c.state = 'crashed' OR c.sent_upstream = 1",
                "c.sent_upstream = 1",
                (f"{RESTORE}::test_a_window_survives_kill_9",),
            ),
        ),
        "three times twelve admitted, three given back, four settled, then SIGKILL: 9, 18 and 27"
        " counted after the start,"
        " and exactly 31, 22 and 13 more admitted under a limit of 40",
    ),
    Row(
        "R4",
        "one client that waits Retry-After on a request window succeeds; a second less is refused",
        (
            f"{ADMISSION}::test_a_client_that_waits_retry_after_succeeds",
            f"{ADMISSION}::test_of_several_full_windows_the_one_that_frees_last_is_told",
            f"{GATE}::test_one_who_waits_as_long_as_told_is_served",
        ),
        (
            Mutation(
                "daemon/traffic/refusals.py",
                "return max(0, -(-microseconds // SECOND))",
                "return max(0, microseconds // SECOND)",
                (f"{ADMISSION}::test_a_client_that_waits_retry_after_succeeds",),
            ),
            Mutation(
                "daemon/traffic/tallies.py",
                "other.frees_at > one.frees_at",
                "other.frees_at < one.frees_at",
                (f"{ADMISSION}::test_of_several_full_windows_the_one_that_frees_last_is_told",),
            ),
            Mutation(
                "daemon/traffic/windows.py",
                "return history.falls_below(self.max) + self.period",
                "return history.falls_below(self.max) + self.period - 2_000_000",
                (f"{GATE}::test_one_who_waits_as_long_as_told_is_served",),
            ),
        ),
        "three windows (minute, hour, day) through the whole gate: served after each wait, refused before it",
    ),
    Row(
        "H11",
        "SIGHUP swaps the TLS certificate without a failed handshake; a bad pair keeps the old one",
        (
            f"{RELOAD}::test_a_certificate_is_exchanged_without_a_failed_handshake",
            f"{RELOAD}::test_sighup_takes_up_the_file_and_a_bad_one_changes_nothing",
            f"{RELOAD}::test_tls_is_neither_turned_on_nor_off_by_a_reload",
        ),
        (
            Mutation(
                "daemon/reload.py",
                "        server.ssl_options = context\n",
                "",
                (f"{RELOAD}::test_a_certificate_is_exchanged_without_a_failed_handshake",),
            ),
            Mutation(
                "daemon/reload.py",
                '        raise StartError(f"the certificate',
                '        return None\n        raise StartError(f"the certificate',
                (f"{RELOAD}::test_a_certificate_is_exchanged_without_a_failed_handshake",),
            ),
        ),
        "four clients shake hands without pause over two reloads, one of them refused, while a"
        " stream runs: no handshake"
        " failed, the stream came whole",
    ),
)
