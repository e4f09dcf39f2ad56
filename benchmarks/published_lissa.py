"""Results of the published LiSSA on the mixture if diverged vectors are used as scores, as in the published code.

Refit never uses them: only this process switches the detection of divergence off. The published protocol (leaked Adam
state) of configs/loo/mixture.yaml, ten data seeds, matched and cross; everything else as in the config.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import influence.solvers
from benchmarks.harness import ROOT, machine, write_json
from orchestrator import api

COLUMNS = ["label", "class_share", "class_share_ci_low", "class_share_ci_high", "mean_r", "over_median", "over_p90"]
METHOD = (
    "{name: cross_loss_influence, as: published, solver: {name: lissa, depth: 150, batch_size: 1, order: given, "
    "damping: 0.01, scale: 25, rescale: false, max_residual: 1.0e+38}}"
)
ROWS = (
    "[{as: matched, method: published, scores: nll-leaked, truth: nll-leaked}, "
    "{as: cross, method: published, scores: dec-fresh, truth: nll-leaked, against: matched}]"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/published_lissa.json")
    out = parser.parse_args().out
    influence.solvers.GROWTH = 1e300
    with tempfile.TemporaryDirectory() as store:
        changes = [f"output={store}", "tracking=null", f"methods=[{METHOD}]", f"leave_one_out.comparisons={ROWS}"]
        result = api.run(api.load_config(ROOT / "configs/loo/mixture.yaml", changes), address="local")
    assert result.results is not None
    rows = result.results.tables["agreement"].loc[:, COLUMNS].to_dict("records")
    for row in rows:
        print(row)
    write_json(out, {"rows": rows, "machine": machine()})


if __name__ == "__main__":
    main()
