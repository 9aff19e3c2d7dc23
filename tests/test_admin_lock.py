"""One daemon per data folder: the second is refused in words, and a killed one leaves nothing in the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import StartError
from daemon.admin.lock import hold_lock, lock_holder

HOLD = """
import sys
from pathlib import Path
from daemon.admin.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_daemon_is_refused_and_told_which_process_is_the_first(tmp_path: Path) -> None:
    """T5: the refusal names process and folder, and what to do."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert lock_holder(tmp_path) == other.pid
        with pytest.raises(StartError, match=rf"process {other.pid}, already runs on .*{tmp_path.name}.*--data"):
            with hold_lock(tmp_path):
                raise AssertionError("two daemons hold the same folder")
        other.kill()
        other.wait()
    # Killed without a chance to tidy up, it no longer stands in the way.
    with hold_lock(tmp_path):
        assert lock_holder(tmp_path) == os.getpid()
    assert lock_holder(tmp_path) is None


def test_a_folder_that_is_not_writable_is_named(tmp_path: Path) -> None:
    """The reason is in the sentence; no traceback."""
    with pytest.raises(StartError, match="absent"):
        with hold_lock(tmp_path / "absent"):
            pass


def test_the_lock_is_let_go_when_the_start_fails(tmp_path: Path) -> None:
    """An error inside leaves the folder free for the next attempt."""
    with pytest.raises(RuntimeError), hold_lock(tmp_path):
        raise RuntimeError("start failed")
    with hold_lock(tmp_path):
        pass
