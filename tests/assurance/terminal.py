"""T: what reaches a terminal, a spreadsheet, a disk, the admin socket."""

from __future__ import annotations

from tests.assurance.rows import Mutation, Row

UNTRUSTED = "tests/test_common_untrusted.py"
TABLES = "tests/test_cli_tables.py"
EXPORT = "tests/test_audit_export.py"
FILES = "tests/test_common_files.py"
SOCKET = "tests/test_admin_socket.py"
LOCK = "tests/test_admin_lock.py"
ROOTLESS = "tests/test_gate_rootless.py"
STOPPING = "tests/test_gate_stopping.py"
RULES = "tests/test_house_rules.py"
PURE = "tests/test_console_pure.py"
HOSTILE = "tests/test_console_hostile.py"
BOXES = f"{HOSTILE}::test_every_box_and_text_of_a_page_is_clean_and_does_nothing"

ROWS = (
    Row(
        "T1",
        "one function makes foreign text safe (C0, C1, DEL, bidirectional, zero-width, tags become visible), where the"
        " console decodes it; an output guard stands behind every widget",
        (
            f"{UNTRUSTED}::test_hostile_text_becomes_visible",
            f"{PURE}::test_the_output_guard_lets_nothing_unsafe_pass",
            f"{HOSTILE}::test_every_field_of_every_page_is_clean_before_it_is_drawn",
            f"{HOSTILE}::test_the_guard_alone_keeps_the_terminal_safe",
        ),
        (
            Mutation(
                "console/mirror.py",
                "        return clean(value)",
                "        return value",
                (f"{HOSTILE}::test_every_field_of_every_page_is_clean_before_it_is_drawn",),
            ),
            Mutation(
                "console/guard.py",
                "if segment.control or clean(segment.text) == segment.text",
                "if segment is not None",
                (f"{HOSTILE}::test_the_guard_alone_keeps_the_terminal_safe",),
            ),
        ),
        "132 strings and a line of a megabyte in every column of every page each run: the guard finds nothing to do;"
        " with cleaning switched off in the whole program, the guard alone leaves nothing strange on a pty",
    ),
    Row(
        "T2",
        "the Big List of Naughty Strings and our own payloads in every field of every screen: no crash, no action, no"
        " new escape byte on the pty",
        (
            f"{HOSTILE}::test_the_terminal_is_sent_nothing_but_the_consoles_own_sequences",
            BOXES,
            f"{HOSTILE}::test_all_of_the_corpus_in_every_field_of_every_page",
            f"{HOSTILE}::test_the_terminal_is_sent_nothing_else_with_all_of_the_corpus",
            f"{HOSTILE}::test_a_sequence_from_outside_would_be_seen",
        ),
        (
            Mutation(
                "console/screens/reading.py",
                "in clean_block(shown).split",
                "in shown.split",
                (f"{BOXES}[live]",),
            ),
            Mutation(
                "console/screens/reading.py",
                "in clean_block(shown).split",
                "in shown.split",
                (f"{BOXES}[audit]",),
            ),
            Mutation(
                "console/app.py",
                'message, **(given | {"markup": False})',
                "message, **given",
                (f"{HOSTILE}::test_what_is_said_in_a_toast_is_no_markup",),
            ),
        ),
        "605 strings, 96 of them ours, a row each in every field of seven kinds of rows and of every answer; every key"
        " of every page pressed on such a row (marked long: with 33 of them and a line of a megabyte)",
    ),
    Row(
        "T3",
        "no CSV cell is a formula: a start of = + - @ TAB CR LF or ' gets one apostrophe, and"
        " stripping one is the exact"
        " inverse; JSONL is the canonical export",
        (
            f"{UNTRUSTED}::test_a_csv_cell_is_never_a_formula_and_comes_back_exactly",
            f"{UNTRUSTED}::test_each_dangerous_start_gets_one_apostrophe",
            f"{UNTRUSTED}::test_cells_survive_a_csv_file",
            f"{EXPORT}::test_no_cell_is_a_formula_and_every_text_comes_back",
            f"{EXPORT}::test_jsonl_has_the_same_names_and_loses_nothing",
        ),
        (
            Mutation(
                "common/untrusted.py",
                '"\\r", "\\n", "\'")',
                '"\\r", "\\n")',
                (f"{UNTRUSTED}::test_each_dangerous_start_gets_one_apostrophe",),
            ),
            Mutation(
                "common/untrusted.py",
                '"=", "+", "-", "@", "\\t"',
                '"=", "+", "-", "@"',
                (f"{UNTRUSTED}::test_each_dangerous_start_gets_one_apostrophe",),
            ),
            Mutation(
                "daemon/audit/export.py",
                "csv_cell(value) if isinstance(value, str)",
                "value if isinstance(value, str)",
                (f"{EXPORT}::test_no_cell_is_a_formula_and_every_text_comes_back",),
            ),
        ),
        "eight starts by name, and 100 texts of any characters through a CSV writer and reader each run",
    ),
    Row(
        "T4",
        "exports: made with O_CREAT, O_EXCL and O_NOFOLLOW, 0600, under a temporary name in the same"
        " folder; synced, renamed,"
        " the folder synced; what is reported was read back",
        (
            f"{FILES}::test_what_has_the_temporary_name_already_is_not_written_to",
            f"{FILES}::test_a_wide_umask_does_not_widen_it_and_no_moment_is_wider",
            f"{FILES}::test_the_temporary_file_is_in_the_same_folder",
            f"{TABLES}::test_a_file_is_written_whole_and_read_back",
            f"{TABLES}::test_a_file_is_on_the_disk_before_it_has_its_name",
            f"{TABLES}::test_a_file_that_fails_half_way_leaves_the_old_one_and_nothing_else",
            f"{TABLES}::test_a_link_in_the_place_of_the_file_is_replaced_not_followed",
        ),
        (
            Mutation("common/files.py", "os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW", "os.O_CREAT | os.O_NOFOLLOW"),
            Mutation("common/files.py", "os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW", "os.O_CREAT"),
            Mutation("common/files.py", "flags, 0o600, dir_fd=folder", "flags, 0o644, dir_fd=folder"),
            Mutation("common/files.py", "                os.fsync(file.fileno())\n", ""),
            Mutation("common/files.py", "        os.fsync(folder)\n", ""),
            Mutation(
                "common/files.py",
                "                os.unlink(temporary, dir_fd=folder)\n                raise",
                "                raise",
            ),
        ),
        "a file, a link and a dangling link in the temporary name's place: each refused, each untouched",
    ),
    Row(
        "T5",
        "admin socket: folder 0700 or 0750, socket 0600 or 0660, never wider for a moment; the"
        " peer's uid from SO_PEERCRED"
        " is recorded with its name on every change; a second daemon is refused by a lock",
        (
            f"{SOCKET}::test_socket_and_folder_are_for_their_owner_alone",
            f"{SOCKET}::test_the_socket_is_never_wider_than_it_ends_up",
            f"{SOCKET}::test_with_a_group_the_group_may_use_it_and_nobody_else",
            f"{SOCKET}::test_the_peer_is_who_the_system_says",
            f"{ROOTLESS}::test_the_daemon_runs_without_root_and_keeps_its_files_to_itself",
            f"{LOCK}::test_a_second_daemon_is_refused_and_told_which_process_is_the_first",
            f"{STOPPING}::test_a_second_daemon_on_the_same_data_is_refused_and_told_whose_it_is",
        ),
        (
            Mutation(
                "daemon/admin/binding.py",
                "before = os.umask(0o177)",
                "before = os.umask(0o022)",
                (f"{SOCKET}::test_the_socket_is_never_wider_than_it_ends_up",),
            ),
            Mutation(
                "daemon/admin/binding.py",
                "mode = 0o700 if gid is None else 0o750",
                "mode = 0o755",
                (f"{SOCKET}::test_socket_and_folder_are_for_their_owner_alone",),
            ),
            Mutation(
                "daemon/admin/peer.py",
                "return Actor(uid=uid, name=account_name(uid)",
                'return Actor(uid=uid, name="administrator"',
                (f"{SOCKET}::test_the_peer_is_who_the_system_says",),
            ),
            Mutation(
                "daemon/admin/lock.py",
                "fcntl.LOCK_EX | fcntl.LOCK_NB",
                "fcntl.LOCK_SH | fcntl.LOCK_NB",
                (f"{LOCK}::test_a_second_daemon_is_refused_and_told_which_process_is_the_first",),
            ),
        ),
        "one account made by root over the socket of a daemon of uid 65534: recorded as uid 0, root, via socket",
    ),
    Row(
        "T6",
        "the console never opens the database; the daemon runs without root, and its files are its own",
        (
            f"{ROOTLESS}::test_the_console_never_opens_the_database",
            f"{ROOTLESS}::test_the_daemon_runs_without_root_and_keeps_its_files_to_itself",
            f"{RULES}::test_imports_point_the_right_way",
        ),
        (
            Mutation(
                "console/client.py",
                "import stat\n",
                "import sqlite3\nimport stat\n",
                (f"{RULES}::test_imports_point_the_right_way",),
            ),
            Mutation(
                "daemon/descriptors.py",
                "setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))",
                "setrlimit(resource.RLIMIT_NOFILE, (wanted, hard + 1))",  # what only root may
                (f"{ROOTLESS}::test_the_daemon_runs_without_root_and_keeps_its_files_to_itself",),
            ),
        ),
        "five commands watched by an audit hook of the interpreter: no file of the database opened,"
        " sqlite3 not imported;"
        " start, chat, change, reload and stop as uid 65534 with every file of its data 0600 or narrower",
    ),
)
