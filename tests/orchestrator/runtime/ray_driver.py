"""A driver of its own: python ray_driver.py [hang_in]. Retrains on a Ray of its own; with `hang_in`, until it is killed."""

from __future__ import annotations

import os
import signal
import sys
import warnings

from ray_fixtures import events_until, join, run_all
from ray_tiny_task import HANGS, WatchedRecipe, WatchedTask, tiny_context
from tiny_task import tiny_work, tiny_works

from orchestrator.runtime.ray_backend import RayBackend


def main(hang_in: str = "") -> None:
    warnings.simplefilter("error")
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pool = RayBackend(tiny_context(WatchedTask(recipe=WatchedRecipe(hang_in=hang_in))), workers=2)
    if hang_in:
        [worker] = join(pool, 1)
        pool.submit(worker, tiny_work(HANGS), 1)
        events_until(pool, lambda seen: False)
    outcomes, _ = run_all(pool, tiny_works(3))
    assert signal.signal(signal.SIGTERM, handler) is signal.SIG_IGN
    pool.close()
    print(len(outcomes), os.environ["RAY_AUTH_MODE"], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
