"""`refit plan` on damaged data files: accepted, or refused in one line with exit code 2; never a traceback.

REFIT_FUZZ_FILES: how many files of each format, 20 by default; `benchmarks/fuzz_files.py` does 300 and measures the time.
"""

from __future__ import annotations

import os

import pytest

from benchmarks.mutated_files import FORMATS, write_mutated
from orchestrator.cli import main

N_FILES = int(os.environ.get("REFIT_FUZZ_FILES", "20"))


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_accepted_or_refused_in_one_line(tmp_path, capsys, kind):
    codes = []
    for seed in range(N_FILES):
        path = write_mutated(tmp_path, kind, seed)
        codes.append(main(["plan", str(path)]))
        found = capsys.readouterr()
        assert codes[-1] in (0, 2), f"{kind} {seed}: {found.err}"
        assert "Traceback" not in found.err, f"{kind} {seed}"
        if codes[-1] == 2:
            assert len(found.err.splitlines()) == 1, f"{kind} {seed}: {found.err}"
            assert len(found.err) < 2000, f"{kind} {seed}: {found.err[:300]}"
    assert {0, 2} == set(codes), "the damage is such that some files can be read and some cannot"
