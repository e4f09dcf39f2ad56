"""`refit plan` on damaged data files of every format: exit codes, lines on stderr, and the time of each.

    python benchmarks/fuzz_files.py [--files 300] [--json benchmarks/results/fuzz_files.json]

Every file is planned in one process; the slowest file of each format is planned a second time by the command line,
including its start.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import machine, refit, write_json
from benchmarks.mutated_files import FORMATS, write_mutated
from orchestrator.cli import main as refit_main


def plan(path: Path) -> tuple[int, str, float]:
    """Return exit code, stderr and seconds of `refit plan` in this process."""
    out, err = io.StringIO(), io.StringIO()
    before = time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = refit_main(["plan", str(path)])
    return code, err.getvalue(), time.perf_counter() - before


def of_format(kind: str, n_files: int) -> dict:
    """Return the results for `n_files` damaged files of a format."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for seed in range(n_files):
            path = write_mutated(Path(folder), kind, seed)
            code, err, seconds = plan(path)
            is_clear = code == 0 or (code == 2 and len(err.splitlines()) == 1 and "Traceback" not in err)
            found.append((seconds, seed, code, is_clear, err))
        seconds, seed, *_ = max(found)
        before, busy = time.perf_counter(), _children_s()
        refit("plan", Path(folder) / f"config-{seed}.yaml", check=False)
        process_s, process_cpu_s = time.perf_counter() - before, _children_s() - busy
    for _, number, code, is_clear, err in found:
        if not is_clear:
            print(f"{kind} {number}: exit {code}: {err.strip()[:300]}")
    return {
        "files": n_files,
        "accepted": sum(code == 0 for _, _, code, _, _ in found),
        "refused": sum(code == 2 for _, _, code, _, _ in found),
        "unclear": sum(not is_clear for _, _, _, is_clear, _ in found),
        "slowest_seed": seed,
        "slowest_s": round(seconds, 3),
        "slowest_process_s": round(process_s, 3),
        "slowest_process_cpu_s": round(process_cpu_s, 3),
    }


def _children_s() -> float:
    """Return processor seconds of the ended child processes, which other load on the machine does not change."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> int:
    """Plan all files, print and write the results; return 1 if a file was neither planned nor refused in one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict = {"machine": machine(), "formats": {}}
    with tempfile.TemporaryDirectory() as folder:
        plan(write_mutated(Path(folder), "parquet", 0))  # imports must not count as time of the first file
    for kind in FORMATS:
        report["formats"][kind] = of_format(kind, options.files)
        print(kind, report["formats"][kind], flush=True)
    if options.json:
        write_json(options.json, report)
    return int(any(one["unclear"] for one in report["formats"].values()))


if __name__ == "__main__":
    sys.exit(main())
