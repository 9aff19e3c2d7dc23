"""Fuzzing of everything that reads a stranger's bytes: the targets, and atheris to drive them.

    .venv/bin/python -m tests.fuzz --seconds 60             each target for a minute
    .venv/bin/python -m tests.fuzz head sse --seconds 600   two of them, for ten

`tests/test_fuzz_targets.py` plays every seed, and some mutations of it, in each run of the tests, without atheris.
"""
