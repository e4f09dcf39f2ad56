"""500 mutated configs: `refit plan` accepts each, or refuses it in one line; there is no traceback and no other exit code."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from orchestrator.cli import LONGEST_LINE, main
from orchestrator.config.load import load_config
from tasks.errors import InputError
from tests.config_mutations import mutants
from tests.malformed_campaigns import BASES
from tests.malformed_pairs import PAIRS, write_pairs
from tests.orchestrator.small_campaigns import write_corpus
from tests.test_malformed_inputs import CONFIG, ROWS

SMALL = {"plain": CONFIG, "pairs": PAIRS, **BASES}
SHIPPED = sorted((Path(__file__).resolve().parent.parent / "configs").rglob("*.yaml"))
SEED, N_SMALL, N_SHIPPED = 12, 76, 5


@pytest.mark.parametrize("base", SMALL)
def test_plan_of_mutated_campaigns(base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("train.csv", "test.csv"):
        Path(name).write_text(ROWS)
    write_corpus(tmp_path / "corpus.jsonl")
    write_pairs(tmp_path)
    codes = []
    for number, config in enumerate(mutants({**copy.deepcopy(SMALL[base]), "output": "runs"}, SEED, N_SMALL)):
        Path("config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        codes.append(main(["plan", "config.yaml"]))
        err = capsys.readouterr().err
        assert codes[-1] in (0, 2), f"mutant {number}: {err}"
        assert "Traceback" not in err
        assert len(err.splitlines()) == (1 if codes[-1] else 0), f"mutant {number}: {err}"
        assert len(err) <= LONGEST_LINE + 10
    assert codes.count(2) > N_SMALL / 2
    assert not Path("runs").exists(), "plan left something behind"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_mutants_of_the_shipped_configs_are_parsed_or_refused(path, tmp_path):
    """Their data are not read, which would take seconds each."""
    base = yaml.safe_load(path.read_text(encoding="utf-8"))
    for config in mutants(base, SEED, N_SHIPPED):
        mutant = tmp_path / "config.yaml"
        mutant.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        message = refusal(mutant)
        assert message is None or (message.startswith(str(mutant)) and len(message.splitlines()) == 1)


def refusal(path: Path) -> str | None:
    """What a config is refused with; None if it is not."""
    try:
        load_config(path)
    except InputError as error:
        return str(error)
    return None
