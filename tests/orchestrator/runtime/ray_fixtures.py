"""A separate Ray for a test module: short temporary directory, token, free ports, nothing left afterwards."""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray

from orchestrator.records import Outcome, Work
from orchestrator.runtime import ray_environment
from orchestrator.runtime.backend import Backend
from orchestrator.runtime.ray_backend import secure_ray
from orchestrator.scheduling.events import Completed, Event, Failed, WorkerDraining, WorkerJoined, WorkerLost

MARK = "REFIT_TEST_RAY"  # inherited by every process that Ray starts, by which they are found
PATIENCE_S = 60.0
STRANGER = """
from orchestrator.runtime.backend import WorkerContext
from orchestrator.runtime.ray_backend import RayBackend
from tasks.base import Numerics
from tasks.errors import InputError
try:
    RayBackend(WorkerContext(None, Numerics()), address={address!r}).start()
except InputError as error:
    print(error)
"""


@contextmanager
def ray_of_our_own(num_cpus: int, num_gpus: int = 0) -> Iterator[None]:
    """Start a local Ray to which this process is connected; `num_gpus` are fake."""
    secure_ray(make_token=True)
    with marked() as mark:
        temp_dir = ray_environment.TempDir()
        with ray_environment.driver_import_path(), ray_environment.keeping_sigterm():
            ray.init(
                "local",
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=128 * 2**20,
                logging_level=logging.ERROR,
                _temp_dir=temp_dir.path,
            )
        try:
            yield
        finally:
            ray.shutdown()
            wait_until_gone(mark)
            temp_dir.remove()


@contextmanager
def marked() -> Iterator[str]:
    """Give child processes that start inside a unique mark in their environment."""
    mark = secrets.token_hex(8)
    os.environ[MARK] = mark
    try:
        yield mark
    finally:
        del os.environ[MARK]


def processes(mark: str) -> dict[int, str]:
    """Return living processes that carry `mark`, this one excepted: pid -> command line."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                environment, command = (folder / "environ").read_bytes(), (folder / "cmdline").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"{MARK}={mark}".encode() in environment.split(b"\0") and state != "Z":
                found[int(folder.name)] = command.replace(b"\0", b" ").decode()
    return found


def wait_until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Return once `condition()` is true; raise AssertionError after `patience_s`."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, f"not within {patience_s:g} s"
        time.sleep(0.05)


def wait_until_gone(mark: str, patience_s: float = PATIENCE_S) -> None:
    """Return once no process carries `mark`; after `patience_s` raise AssertionError naming those that do."""
    end = time.monotonic() + patience_s
    while left := processes(mark):
        assert time.monotonic() < end, f"still there after {patience_s:g} s: {left}"
        time.sleep(0.05)


def events_until(backend: Backend, enough: Callable[[list[Event]], object]) -> list[Event]:
    """Collect events of `backend` until `enough(events)` is true."""
    seen: list[Event] = []
    wait_until(lambda: seen.extend(backend.wait(0.5)) or enough(seen))
    return seen


def join(backend: Backend, n_workers: int) -> list[str]:
    """Start, and return the names of the first `n_workers` workers."""
    backend.want(n_workers)
    backend.start()
    seen = events_until(backend, lambda events: len(events) >= n_workers)
    assert all(isinstance(event, WorkerJoined) for event in seen)
    return [event.worker for event in seen]


def run_all(backend: Backend, works: Mapping[str, Work]) -> tuple[dict[str, Outcome], list[Event]]:
    """Run all works, repeating those that fail or are lost; return outcomes in the order of `works`, and every event."""
    backend.want(len(works))
    backend.start()
    waiting, running, idle, ending, done, events = list(works), {}, [], set(), {}, []
    end = time.monotonic() + PATIENCE_S
    while len(done) < len(works):
        assert time.monotonic() < end, f"{len(done)} of {len(works)} done; events: {events}"
        for event in backend.wait(0.5):
            events.append(event)
            settle(event, waiting, running, idle, ending, done)
        while waiting and idle:
            worker, spec_id = idle.pop(0), waiting.pop(0)
            running[worker] = spec_id
            backend.submit(worker, works[spec_id], 1)
    return {spec_id: done[spec_id] for spec_id in works}, events


def settle(
    event: Event,
    waiting: list[str],
    running: dict[str, str],
    idle: list[str],
    ending: set[str],
    done: dict[str, Outcome],
) -> None:
    """Update the state of `run_all` by one event."""
    if isinstance(event, Completed):
        done[event.outcome.spec_id] = event.outcome
    if isinstance(event, (Failed, WorkerLost)) and event.worker in running:
        waiting.insert(0, running[event.worker])
    if isinstance(event, (Completed, Failed, WorkerLost)):
        running.pop(event.worker, None)
    if isinstance(event, WorkerDraining):
        ending.add(event.worker)
    if isinstance(event, (WorkerJoined, Completed, Failed)) and event.worker not in ending:
        idle.append(event.worker)


def results(outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, bytes]]:
    """Return spec id -> split -> bytes of the outputs."""
    return {spec_id: {split: a.tobytes() for split, a in o.outputs.items()} for spec_id, o in outcomes.items()}


def refused(address: str, **environment: str) -> str:
    """Return the error of a process that connects to `address` without our token, with `environment` added to our environment."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_TOKEN")}
    inherited |= {"RAY_NUM_REDIS_GET_RETRIES": "2", "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-c", STRANGER.format(address=address)]
    stranger = subprocess.run(command, env=inherited, capture_output=True, text=True, timeout=PATIENCE_S)
    return stranger.stdout or stranger.stderr
