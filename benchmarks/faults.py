"""A campaign of 300+ real retrains on a local Ray cluster of three nodes, hit by 25 faults, compared with an undisturbed run.

It passes if it ends with exit 4 naming exactly the retrains that cannot succeed, if everything else is byte-identical
to the undisturbed run, and if at most the retrains in flight at each fault were repeated. The store lies on a small
file system of its own (a tmpfs in a mount namespace, so that it can be filled), which needs Linux with unprivileged
user namespaces.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.fault_cluster import LocalCluster, MlflowServer
from benchmarks.fault_kinds import Campaign, Diary, Driver
from benchmarks.fault_recipe import DIARY, POISON, key_of
from benchmarks.harness import ROOT, ledger_rows, machine, refit, tables, write_json

CONFIG = ROOT / "configs/faults.yaml"
N_NODES = 3
COUNTS = {
    "worker_killed": 6, "node_lost": 4, "node_drained": 4, "driver_killed": 4, "part_truncated": 1, "storage_full": 2,
}  # fmt: skip
POISONS = ("raise", "hang", "nan")  # with the MLflow server that is down for the second half, these make 25 faults
STORE_MIB = 64
INSIDE = "REFIT_FAULTS_STORE"  # set in the process that has the file system of its own


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the outcome")
    options = parser.parse_args()
    if INSIDE not in os.environ:
        return in_a_namespace()
    store = Path(os.environ[INSIDE])
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STORE_MIB}m", "none", store], check=True)
    with tempfile.TemporaryDirectory(prefix="rf", dir="/tmp") as folder:  # short: Ray's sockets lie in it
        outcome = compare(random.Random(options.seed), store, Path(folder))
    if options.out:
        write_json(options.out, outcome)
    print(markdown(outcome))
    return 0 if outcome["passed"] else 1


def in_a_namespace() -> int:
    """Run this program again in a namespace in which it may mount a file system of its own."""
    with tempfile.TemporaryDirectory(prefix="refit-faults-") as store:
        command = ["unshare", "--map-root-user", "--mount", sys.executable, "-m", "benchmarks.faults", *sys.argv[1:]]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, INSIDE: store}, check=False).returncode


def compare(rng: random.Random, store: Path, folder: Path) -> dict:
    """Run the same campaign undisturbed and with faults, and compare the two."""
    import orchestrator.api as api

    os.environ["PYTHONPATH"] = str(ROOT)
    quiet, faulted = store / "quiet", store / "faulted"
    refit("run", CONFIG, "--until", "plan", "--yes", "--address", "local", "--set", f"output={quiet}")
    works = api.open_pipeline(api.load_config(CONFIG, [f"output={quiet}"]), address="local").planned.works
    spec_of = {key_of(work.edit, work.spec.seed): work.spec_id for work in works}
    removals = sorted(key_of(work.edit, work.spec.seed) for work in works if work.edit.ids)
    poison = dict(zip(rng.sample(removals, len(POISONS)), POISONS, strict=True))
    (folder / "poison.json").write_text(json.dumps(poison))
    os.environ[POISON] = str(folder / "poison.json")
    cluster, server = LocalCluster(N_NODES, folder), None
    try:
        begun = time.monotonic()
        diary_of(folder / "quiet.diary")
        done = refit("run", CONFIG, "--yes", "--address", restarted(cluster), "--set", f"output={quiet}", check=False)
        quiet_s = time.monotonic() - begun
        server = MlflowServer(folder / "mlflow")
        server.start()
        campaign = faulted_run(cluster, server, Diary(folder / "faulted.diary", spec_of), faulted, rng, folder)
        server.start()
        (run_dir,) = [path.parent for path in faulted.glob("*-*/results")]
        synced = refit("sync", run_dir).stdout.strip()
    finally:
        if server is not None:
            server.stop()
        cluster.close()
    log = (folder / "driver.log").read_text()
    return judge(campaign, poison, done.returncode, quiet, quiet_s, synced, log)


def diary_of(path: Path) -> None:
    """Make retrains write their diary to `path`; nodes started later inherit it."""
    os.environ[DIARY] = str(path)


def restarted(cluster: LocalCluster) -> str:
    """Restart the cluster's nodes so that they get this process's environment; return the cluster's address."""
    for node in cluster.nodes:
        cluster.remove(node)
        cluster.add()
    return cluster.address


def faulted_run(
    cluster: LocalCluster, server: MlflowServer, diary: Diary, output: Path, rng: random.Random, folder: Path
) -> Campaign:
    """Run to the end, with faults at random points."""
    diary_of(diary.path)
    address = restarted(cluster)
    settings = ("--set", f"output={output}", "--set", f"tracking={{uri: '{server.uri}'}}")
    driver = Driver((CONFIG, "--yes", "--address", address, *settings), folder / "driver.log")
    campaign = Campaign(cluster, driver, diary, output, rng)
    kinds = [kind for kind, count in COUNTS.items() for _ in range(count)]
    rng.shuffle(kinds)
    points = sorted(rng.uniform(0.03, 0.93) * len(diary.spec_of) for _ in kinds)
    driver.begin()
    for kind, point in zip(kinds, points, strict=True):
        campaign.wait(lambda point=point: len(diary.starts()) >= point, 1200)
        if point > len(diary.spec_of) / 2:
            server.stop()
        campaign.hit(kind)
    campaign.wait(lambda: False, 1800)
    campaign.settle()
    return campaign


def judge(
    campaign: Campaign, poison: dict, quiet_code: int, quiet: Path, quiet_s: float, synced: str, log: str
) -> dict:
    """Return all conditions that must hold, and the counts."""
    spec_of, faulted = campaign.diary.spec_of, campaign.output
    expected = sorted(spec_of[key] for key, how in poison.items() if how != "nan")
    nan = [spec_of[key] for key, how in poison.items() if how == "nan"]
    rows, status = ledger_rows(faulted), statuses(faulted)
    starts = campaign.diary.starts()
    repeated = sum(count - 1 for key, count in starts.items() if poison.get(key) not in ("raise", "hang"))
    allowed = sum(line["in_flight"] for line in campaign.history)
    outputs, quiet_outputs = recorded(faulted), recorded(quiet)
    holds = {
        "exit_4_in_both_runs": (campaign.driver.process.returncode, quiet_code) == (4, 4),
        "quarantined_are_exactly_those_that_cannot_succeed": sorted(s for s, x in status.items() if x == "quarantined")
        == expected,
        "quarantined_are_named_on_the_terminal": all(spec_id in log for spec_id in expected),
        "nan_is_diverged": [s for s, x in status.items() if x == "diverged"] == nan,
        "every_result_byte_identical": outputs == quiet_outputs,
        "every_table_byte_identical": tables(faulted) == tables(quiet),
        "one_row_a_retrain": len(rows) == len(status),
        "repeated_at_most_in_flight": repeated <= allowed,
        "tracking_outage_was_a_warning": "MLflow was not updated" in log,
        "mlflow_caught_up": "runs created" in synced,
    }
    external = Counter(line["fault"] for line in campaign.history)
    faults = {**external, "mlflow_down_for_half": 1, **{f"retrain_that_{how}s": 1 for how in POISONS}}
    return {
        "config": CONFIG.name, "passed": all(holds.values()), "holds": holds, "faults": faults, "n_faults": sum(faults.values()),
        "retrains": len(status), "attempts_begun": sum(starts.values()), "repeated": repeated, "repeated_at_most": allowed,
        "driver_starts": campaign.driver.n_starts, "quarantined": expected, "diverged": nan, "mlflow": synced,
        "quiet_s": round(quiet_s, 1), "history": campaign.history, "machine": machine(),
    }  # fmt: skip


def statuses(output: Path) -> dict[str, str]:
    """Return spec id -> status."""
    return {row["spec_id"]: row["status"] for row in ledger_rows(output)}


def recorded(output: Path) -> dict[str, dict[str, bytes]]:
    """Return spec id -> split -> bytes of the outputs."""
    from orchestrator.storage.blobs import LocalBlobs
    from orchestrator.storage.ledger import Ledger

    found = {}
    for folder in (output / "ledger").iterdir():
        for spec_id, row in Ledger(LocalBlobs(output), folder.name).read().rows.items():
            found[spec_id] = {name: array.tobytes() for name, array in row.outcome.outputs.items()}
    return found


def markdown(outcome: dict) -> str:
    """Return the counts as a table."""
    lines = ["| fault | times |", "|---|---|", *(f"| {name} | {count} |" for name, count in outcome["faults"].items())]
    lines += [
        "",
        "| holds | |",
        "|---|---|",
        *(f"| {name} | {'yes' if ok else 'NO'} |" for name, ok in outcome["holds"].items()),
    ]
    counts = ("retrains", "attempts_begun", "repeated", "repeated_at_most", "driver_starts")
    return "\n".join([*lines, "", *(f"{name}: {outcome[name]}" for name in counts)])


if __name__ == "__main__":
    sys.exit(main())
