"""What every diagnostic of scoring models promises, run over the registry: a new line there is covered here."""

import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from influence.diagnostic import Diagnostic, Panels, Scatter, ScoredModels
from influence.matrix import ScoreMatrix
from influence.methods.tracin import TracIn
from influence.methods.tracin_last import TracInLast
from influence.registry import DIAGNOSTICS
from influence.scoring import Scorer, scores_of_queries
from orchestrator.analysis.query_means import with_query_means
from tasks.components import parse_component
from tasks.errors import InputError

sys.path.append(str(Path(__file__).parents[1] / "influence"))
from small_task import SmallCNN, SmallTask, checkpoint, query_block

OPTIONS = {
    "last_layer_terms": {"k": 5, "top": 3},
    "token_masking": {"overlap_shares": [0.1, 0.4]},
    "artifact": {"of": "negation", "negations": ["w3", "w5"], "scatter_examples": 12},
}
NAMES = sorted(DIAGNOSTICS.entries())
TASK = SmallTask(SmallCNN())
METHODS = {"last": TracInLast(), "all": TracIn()}


def make(name) -> Diagnostic:
    return parse_component(DIAGNOSTICS.load(name, "test"), OPTIONS.get(name, {}), "test", f"diagnose.{name}")


def given(diagnostic, rows=(4, 0, 7)):
    points = [checkpoint(TASK, seed, step=seed, weight=0.1 * seed) for seed in (1, 2)]
    queries, ids = query_block(TASK, rows), TASK.splits["train"].ids
    read = diagnostic.reads_scores_of(METHODS)
    methods = {label: METHODS[label] for label in read}
    scores = Scorer(TASK, points, queries, methods, {}).score_range(0, len(ids))
    matrices = {label: ScoreMatrix(queries.ids, ids, scores[label]) for label in read}
    return ScoredModels(TASK, points, queries, methods, matrices, score_queries=scores_of_queries)


def whole(diagnostic, found):
    """All tables as results/ has them: those of the diagnostic, and the means over queries that it asks for."""
    return with_query_means({name: pd.DataFrame(table) for name, table in found.items()}, diagnostic.query_means)


@pytest.mark.parametrize("name", NAMES)
def test_a_diagnostic_says_what_it_is(name):
    diagnostic = make(name)
    assert isinstance(diagnostic, Diagnostic)
    assert diagnostic.name == name
    assert (inspect.getdoc(type(diagnostic)) or "").splitlines()[0].endswith(".")
    assert DIAGNOSTICS.entries()[name].summary
    assert diagnostic.explained.endswith(".")
    assert json.loads(json.dumps(diagnostic.identity())) == make(name).identity()
    assert pickle.loads(pickle.dumps(diagnostic)) == diagnostic


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_refused(name):
    with pytest.raises(InputError, match="unknown key 'nonsense'"):
        parse_component(type(make(name)), OPTIONS.get(name, {}) | {"nonsense": 1}, "test", "diagnose.0")


@pytest.mark.parametrize("name", NAMES)
def test_its_tables_are_plain_rectangular_json_and_always_the_same(name):
    diagnostic = make(name)
    diagnostic.check(TASK, Path(), METHODS, 2, "config.yaml: diagnose.0")
    diagnostic.check_network(TASK, TASK.network(0), "config.yaml: diagnose.0")
    models = given(diagnostic)
    found = diagnostic.compute(models)
    assert ("" in found) != ("" in diagnostic.query_means), (
        "the main table is computed, or is made of means over queries"
    )
    for table in found.values():
        assert len({len(values) for values in table.values()}) == 1
    every = whole(diagnostic, found)
    assert next(iter(every)) == "", "the main table comes first"
    assert len(every[""]) > 0
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert diagnostic.compute(pickle.loads(pickle.dumps(models))) == found


@pytest.mark.parametrize("name", NAMES)
def test_labels_identify_a_row_and_the_figure_draws_columns_of_the_main_table(name):
    diagnostic = make(name)
    every = whole(diagnostic, diagnostic.compute(given(diagnostic)))
    assert not every[""].duplicated(list(diagnostic.labels)).any()
    figure = diagnostic.figure
    if isinstance(figure, Panels):
        places = [figure.rows] if isinstance(figure.rows, str) else figure.rows
        assert {*places, *figure.values, *filter(None, [figure.series])} <= set(every[""].columns)
        assert figure.log <= set(figure.values)
    if isinstance(figure, Scatter):
        drawn = {*figure.panels, figure.x, figure.y, figure.line, *filter(None, [figure.series])}
        assert drawn <= set(every[figure.table].columns)
    if diagnostic.marked_table:
        assert {"query_id", "start", "end", diagnostic.marked_column} <= set(every[diagnostic.marked_table].columns)


@pytest.mark.parametrize("name", NAMES)
def test_only_those_that_say_so_depend_on_the_queries(name):
    diagnostic = make(name)
    if not diagnostic.uses_queries and not diagnostic.reads_scores_of(METHODS):
        assert diagnostic.compute(given(diagnostic, (1, 2))) == diagnostic.compute(given(diagnostic))


@pytest.mark.parametrize("name", NAMES)
def test_it_changes_no_weight(name):
    diagnostic = make(name)
    models = given(diagnostic)
    before = pickle.dumps([dict(one.state) for one in models.checkpoints])
    diagnostic.compute(models)
    assert pickle.dumps([dict(one.state) for one in models.checkpoints]) == before


def test_choosing_one_imports_no_torch():
    code = (
        "import sys; from influence.registry import DIAGNOSTICS\n"
        "for name in DIAGNOSTICS.entries(): DIAGNOSTICS.load(name, 'test')\n"
        "print(sorted({'torch', 'pyarrow', 'ray', 'transformers', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
