"""The cost of orchestration: the same retrains alternately on two Ray workers with a ledger, and in two plain processes without either.

The figure is wall-clock time with Ray and ledger / wall-clock time of the plain processes; both sides are warm when the
clock starts. Start-up and MLflow are measured separately.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import ROOT, environment, machine, write_json
from orchestrator.api import load_config, open_pipeline
from orchestrator.records import Work
from orchestrator.runtime.backend import WorkerContext
from orchestrator.runtime.driver import drive
from orchestrator.runtime.ray_backend import RayBackend
from orchestrator.runtime.stop import StopSignal
from orchestrator.runtime.worker import configure, retrain
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.stages.pipeline import Pipeline
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.open import open_blobs
from tasks.data.edits import Edit

OVERRIDES = ("task.recipe.epochs=5", "tracking=null")  # about a quarter of a second on one core
WARM_UP = 4


def works_of(pipeline: Pipeline, count: int) -> list[Work]:
    """Return distinct removals under distinct seeds; the first `WARM_UP` are additional."""
    experiment = pipeline.experiment
    ids = experiment.train.ids
    edits = [Edit.removal(ids[i % (len(ids) - 10) : i % (len(ids) - 10) + 10]) for i in range(count + WARM_UP)]
    return [Work(experiment.spec(pipeline.numerics, edit, i), edit) for i, edit in enumerate(edits)]


def context_of(pipeline: Pipeline) -> WorkerContext:
    """Return the context of a worker."""
    pipeline.experiment.task.prepare()
    return WorkerContext(pipeline.experiment.task, pipeline.numerics)


def with_ray(pipeline: Pipeline, count: int, workers: int, folder: Path) -> dict[str, float]:
    """Return seconds of the retrains on Ray, ledger included, and of the start-up before them."""
    works, ledger = works_of(pipeline, count), Ledger(open_blobs(str(folder), "benchmark"), "task")
    begun = time.perf_counter()
    backend = RayBackend(context_of(pipeline), workers=workers)
    try:
        drive_all(backend, ledger, works[:WARM_UP])
        started = time.perf_counter()
        drive_all(backend, ledger, works[WARM_UP:])
        ended = time.perf_counter()
    finally:
        backend.close()
    found = ledger.index().rows
    if len(found) != len(works):
        raise AssertionError(f"{len(found)} of {len(works)} retrains are in the ledger")
    return {
        "seconds": ended - started,
        "start_up_s": started - begun,
        "retrain_s": statistics.median(r.seconds for r in found.values()),
    }


def drive_all(backend: RayBackend, ledger: Ledger, works: Sequence[Work]) -> None:
    result = drive(Scheduler([w.spec_id for w in works]), backend, ledger.publish, {w.spec_id: w for w in works}, None, StopSignal(),
                   code_version="benchmark")  # fmt: skip
    if not result.complete:
        raise AssertionError(result)


def plain(count: int, workers: int, config: Path) -> dict[str, float]:
    """Return seconds of the same retrains in plain processes, from the start signal to the end of the last one."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.orchestration",
        "--config",
        str(config),
        "--count",
        str(count),
        "--workers",
        str(workers),
        "--plain",
    ]
    pool = [subprocess.Popen([*command, str(i)], cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for i in range(workers)]  # fmt: skip
    for process in pool:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise AssertionError("a plain process failed")
    begun = time.perf_counter()
    for process in pool:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.close()
    for process in pool:
        process.wait()
    if any(process.returncode for process in pool):
        raise AssertionError("a plain process failed")
    return {"seconds": time.perf_counter() - begun}


def plain_share(pipeline: Pipeline, count: int, workers: int, share: int) -> None:
    """Run one plain process: warm up, wait for the start signal, train its share."""
    context, works = context_of(pipeline), works_of(pipeline, count)
    configure(context)
    for work in works[:WARM_UP]:
        retrain(context, work, "plain")
    print("ready", flush=True)
    sys.stdin.readline()
    for work in works[WARM_UP + share :: workers]:
        retrain(context, work, "plain")


def mlflow_seconds(folder: Path) -> float:
    """Return seconds of one campaign's projection into a fresh SQLite store, import included."""
    uri = f"sqlite:///{folder}/mlflow.db"
    common = ["--yes", "--address", "local", "--set", f"output={folder}"]
    subprocess.run([sys.executable, "-m", "orchestrator.cli", "run", "configs/tiny.yaml", *common], cwd=ROOT, env=environment(), check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    code = ("import sys, time\nfrom orchestrator.api import load_config, open_pipeline\nfrom orchestrator.inspection.projections import sync\n"
            "p = open_pipeline(load_config('configs/tiny.yaml', sys.argv[1:]), address='local')\np.results\n"
            "t = time.perf_counter()\nsync(p)\nprint(time.perf_counter() - t)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, f"output={folder}", f"tracking={{uri: '{uri}'}}"], cwd=ROOT, env=environment(), check=True,
                          capture_output=True, text=True)  # fmt: skip
    return float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs/planted.yaml")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/orchestration.json")
    parser.add_argument("--plain", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refit-bench-") as folder:
        pipeline = open_pipeline(
            load_config(options.config, [*OVERRIDES, f"output={folder}", "scores.checkpoints=[1]"]), address="local"
        )
        if options.plain is not None:
            plain_share(pipeline, options.count, options.workers, options.plain)
            return
        rounds = []
        for number in range(options.rounds):
            on_ray = with_ray(pipeline, options.count, options.workers, Path(folder) / str(number))
            rounds.append({"ray": on_ray, "plain": plain(options.count, options.workers, options.config)})
            print(rounds[-1], flush=True)
        ratio = statistics.median(r["ray"]["seconds"] for r in rounds) / statistics.median(
            r["plain"]["seconds"] for r in rounds
        )
        write_json(options.out, {"retrains": options.count, "workers": options.workers, "ratio_of_medians": ratio, "rounds": rounds,
                                 "mlflow_sync_s": mlflow_seconds(Path(folder) / "mlflow"), "machine": machine()})  # fmt: skip
        print(f"ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
