"""python ray_driver.py [hang_in]: a few retrains on a Ray of its own; with `hang_in`, one that never ends."""

from __future__ import annotations

import os
import signal
import sys
import warnings

from joined import device_ids
from ray_fixtures import join, run_all
from ray_tiny_task import HANGS, WatchedRecipe, WatchedTask, tiny_context
from tiny_task import tiny_work, tiny_works

from orchestrator.runtime.ray_backend import RayBackend


def main(hang_in: str = "") -> None:
    warnings.simplefilter("error")
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pool = RayBackend(tiny_context(WatchedTask(recipe=WatchedRecipe(hang_in=hang_in))), workers=2)
    try:
        if hang_in:
            hang(pool)
        else:
            print(len(run_all(pool, tiny_works(3))[0]), os.environ["RAY_AUTH_MODE"], flush=True)
        assert signal.signal(signal.SIGTERM, handler) is signal.SIG_IGN
    finally:
        pool.close()


def hang(pool: RayBackend) -> None:
    """Wait for a retrain that never ends, until Ctrl-C, which must not reach the workers."""
    workers = join(pool, 2)
    pool.submit(workers[0], tiny_work(HANGS), 1)
    try:
        while True:
            pool.wait(1.0)
    except KeyboardInterrupt:
        assert pool.wait(1.0) == []
        print(f"interrupted with {len(device_ids(pool))} workers", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
