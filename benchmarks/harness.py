"""Shared by benchmarks and whole-system tests: run refit as a process, kill started processes, compare results, describe the machine."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def refit(
    *arguments: object, cwd: Path = ROOT, check: bool = True, timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """Run one refit command to its end."""
    command = [sys.executable, "-m", "orchestrator.cli", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False, env=environment()
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def start(*arguments: object, log: Path) -> subprocess.Popen:
    """Start one refit command in a session of its own."""
    with open(log, "ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", *map(str, arguments)],
            cwd=ROOT,
            stdout=stream,
            stderr=stream,
            env=environment(),
            start_new_session=True,
        )


def environment() -> dict[str, str]:
    """Return the environment of a refit process: one thread per process, no usage reports."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "REFIT_TRACEBACK": "1"}


def descendants(pid: int) -> list[tuple[int, str]]:
    """Return (pid, command line) of all processes below `pid`."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            todo.append(child)
            try:
                found.append(
                    (
                        child,
                        Path(f"/proc/{child}/cmdline")
                        .read_bytes()
                        .replace(b"\0", b" ")
                        .decode(errors="replace")
                        .strip(),
                    )
                )
            except OSError:
                continue
    return found


def ray_workers(driver: int) -> list[int]:
    """Return the pids of the Ray actors below a driver."""
    return [pid for pid, command in descendants(driver) if command.startswith("ray::RayWorker")]


def wait_until(condition: Callable[[], bool], timeout_s: float, process: subprocess.Popen | None = None) -> bool:
    """Poll until `condition` holds; return False if the process ends first. Raises TimeoutError."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if condition():
            return True
        if process is not None and process.poll() is not None:
            return condition()
        time.sleep(0.02)
    raise TimeoutError(f"the condition does not hold after {timeout_s:g} s")


def kill(pid: int) -> None:
    """Send kill -9 to a process that we started."""
    os.kill(pid, signal.SIGKILL)


def parts(output: Path) -> list[Path]:
    """Return the ledger parts of a store."""
    return sorted(output.glob("ledger/*/part-*.parquet"))


def tables(output: Path) -> dict[str, bytes]:
    """Return results/*.csv of the only run of a store."""
    runs = [path for path in output.glob("*-*/results") if path.is_dir()]
    if len(runs) != 1:
        raise AssertionError(f"{output} holds {len(runs)} runs with results")
    return {path.name: path.read_bytes() for path in sorted(runs[0].glob("*.csv"))}


def ledger_rows(output: Path) -> list[dict]:
    """Return all ledger rows, including duplicates, without outputs."""
    import pyarrow.parquet as pq

    columns = ["spec_id", "status", "attempts", "seconds", "worker", "committed_at"]
    return [row for part in parts(output) for row in pq.read_table(part, columns=columns).to_pylist()]


def machine() -> dict:
    """Describe the machine of a measurement by processor, cores and versions only."""
    from orchestrator.runtime.machine import cpu_model

    packages = ("torch", "ray", "mlflow", "pyarrow", "numpy")
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        **{name: metadata.version(name) for name in packages},
    }


def write_json(path: Path, value: object) -> None:
    """Write figures to be committed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
    print(f"wrote {path}")


def seconds_of(command: Sequence[str], timeout: float = 900) -> float:
    """Return the wall-clock seconds of a command that must succeed."""
    begun = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, timeout=timeout, env=environment(), stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun
