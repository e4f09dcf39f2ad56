"""The cost per row of publishing, indexing, reading and compacting a large ledger of real rows (500 x 4 outputs, 50 removed ids) on disk.

It also measures how long a driver takes to restart on many small parts in a store whose calls have the latency of a
bucket.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.harness import ROOT, machine, write_json
from benchmarks.simulate import resident_bytes, works_of
from orchestrator.records import LedgerRow, Outcome
from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.object_blobs import ObjectBlobs
from orchestrator.storage.open import open_blobs

Result = TypeVar("Result")


def rows_of(n: int) -> Iterator[LedgerRow]:
    """Return `n` finished retrains."""
    outputs = np.random.default_rng(0).normal(size=(256, 500, 4)).astype(np.float32)
    for i, (spec_id, work) in enumerate(works_of(n, 0).items()):
        outcome = Outcome(
            spec_id, "ok", {"test": outputs[i % 256]}, {"loss": 0.5}, None, 60.0, f"ray-{i % 1000}", "NVIDIA A10G"
        )
        moment = f"2025-01-01T{i // 3600 % 24:02d}:{i // 60 % 60:02d}:{i % 60:02d}.{i % 1000000:06d}+00:00"
        yield LedgerRow(outcome, work.spec.json, work.edit, 1, moment, "0123456789abcdef")


class Costs:
    """CPU microseconds and resident bytes per row, by operation."""

    def __init__(self, n_rows: int):
        self.n_rows = n_rows
        self.cpu_us: dict[str, float] = {}
        self.resident_bytes: dict[str, float] = {}

    def run(self, name: str, action: Callable[[], Result]) -> Result:
        """Run and time an operation."""
        before, begun = resident_bytes(), time.process_time()
        result = action()
        self.cpu_us[name] = 1e6 * (time.process_time() - begun) / self.n_rows
        self.resident_bytes[name] = (resident_bytes() - before) / self.n_rows
        return result


def measure(n_rows: int, per_part: int) -> dict:
    """Measure publishing and the operations of a driver's next start: index, compact, index again, read."""
    costs = Costs(n_rows)
    with tempfile.TemporaryDirectory(prefix="refit-bench-") as folder:
        blobs = open_blobs(folder, "benchmark")
        rows, writer = rows_of(n_rows), Ledger(blobs, "task")
        while part := list(islice(rows, per_part)):
            writer.publish(part)
        ledger = Ledger(blobs, "task")
        n_parts, size = len(ledger.parts()), sum(p.stat().st_size for p in Path(folder).rglob("part-*"))
        costs.run("index, first", ledger.index)
        costs.run("index, again", ledger.index)
        some = list(ledger.index().rows)[:3]
        costs.run("compact", ledger.compact)
        costs.run("index, after compaction", ledger.index)
        costs.run("read three rows", lambda: ledger.read(some))
        view = costs.run("read all", lambda: ledger.read(list(ledger.index().rows)))
        if len(view.rows) != n_rows or view.conflicts or view.bad_parts:
            raise AssertionError(f"{len(view.rows)} of {n_rows} rows came back")
        merged = len(ledger.parts())
    return {
        "rows": n_rows,
        "rows_per_part": per_part,
        "parts": n_parts,
        "parts_after_compaction": merged,
        "stored_bytes_per_row": size / n_rows,
        "cpu_us_per_row": costs.cpu_us,
        "resident_bytes_per_row": costs.resident_bytes,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


@dataclass(frozen=True)
class Distant(LocalBlobs):
    """A local folder whose calls have the latency of a bucket."""

    latency_s: float = 0.0

    def get(self, key: str) -> bytes:
        time.sleep(self.latency_s)
        return super().get(key)

    def delete(self, key: str) -> None:
        time.sleep(self.latency_s)
        super().delete(key)


class DistantAtOnce(Distant):
    """The same, with several calls at once, as for a bucket."""

    at_once = ObjectBlobs.at_once


def start_again(n_parts: int, per_part: int, latency_s: float, rounds: int = 3) -> dict:
    """Return seconds to index and compact `n_parts`, with calls one after the other and several at once, alternating."""
    seconds: dict[str, list[float]] = {"one after the other": [], "at once": []}
    with tempfile.TemporaryDirectory(prefix="refit-bench-") as folder:
        rows, writer = rows_of(n_parts * per_part), Ledger(LocalBlobs(Path(folder, "full")), "task")
        while part := list(islice(rows, per_part)):
            writer.publish(part)
        for number in range(rounds):
            for name, kind in zip(seconds, (Distant, DistantAtOnce), strict=True):
                copy = Path(folder, f"{number} {name}")
                shutil.copytree(Path(folder, "full"), copy)
                begun = time.perf_counter()
                ledger = Ledger(kind(copy, latency_s), "task")
                ledger.compact()
                n_rows = len(ledger.index().rows)
                seconds[name].append(time.perf_counter() - begun)
                if n_rows != n_parts * per_part:
                    raise AssertionError(f"{n_rows} rows came back")
                shutil.rmtree(copy)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    return {
        "parts": n_parts,
        "rows_per_part": per_part,
        "latency_s": latency_s,
        "calls_at_once": DistantAtOnce.at_once,
        "seconds": seconds,
        "medians": medians,
        "ratio": medians["one after the other"] / medians["at once"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--per-part", type=int, default=16)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/ledger_scale.json")
    parser.add_argument("--distant-parts", type=int, default=1_000)
    parser.add_argument("--latency-s", type=float, default=0.025)
    options = parser.parse_args()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result = pool.submit(measure, options.rows, options.per_part).result()
    distant = start_again(options.distant_parts, 11, options.latency_s)
    print(result, distant, sep="\n")
    write_json(options.out, {**result, "starting_again_in_a_bucket": distant, "machine": machine()})


if __name__ == "__main__":
    main()
