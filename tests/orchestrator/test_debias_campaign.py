"""Campaign debias, end to end: the sets, the order of work, the grid, and what survives losses and failures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from orchestrator import api
from orchestrator.campaigns.debias.campaign import HARD_STEP, WEIGHTS
from orchestrator.campaigns.debias.effects import ALL, FIRST, SECOND, Setting
from orchestrator.campaigns.debias.plan import property_labels
from orchestrator.campaigns.debias.results import effect_grid
from orchestrator.campaigns.plan import waves
from orchestrator.inspection.verify import verify
from orchestrator.storage.tables import read_plan
from tasks.data.edits import Edit
from tests.orchestrator.small_campaigns import DEBIAS, small_debias
from tests.orchestrator.tiny_campaign import Finished, committed, pipeline_of, result_bytes, run_here

MADE_FOR = ("gender", "reversed", "gender_first", "gender_second")
SIZES, STARTS, ACTIONS, METHODS, SEEDS = (3, 400, 500), ("original", "hard_debiased"), ("both", "amplify"), 2, (1, 2)
N_CELLS = len(MADE_FOR) * len(SIZES) * len(STARTS) * len(ACTIONS) * METHODS * len(SEEDS)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Finished:
    """Run to the end, and not to be changed."""
    folder = tmp_path_factory.mktemp("debias")
    config = small_debias(folder)
    return Finished(folder, config, run_here(config))


@pytest.fixture
def spoilt(done, tmp_path) -> Finished:
    """A copy to be spoilt."""
    shutil.copytree(done.folder / "runs", tmp_path / "runs")
    config = small_debias(tmp_path)
    return Finished(tmp_path, config, run_here(config, until="score"))


def planned_with(done: Finished, folder: Path, **changes):
    """(campaign, scored, plan) of a changed campaign over the scores of the finished one."""
    pipeline = pipeline_of(small_debias(folder, output=str(done.folder / "runs"), **changes))
    return pipeline.experiment.campaign, pipeline.scored, pipeline.planned


def bias_scores(pipeline, label: str, repeat: int) -> tuple[np.ndarray, np.ndarray]:
    """(train ids, influence on |value|) of a property, from the score matrix and the base model's recorded value."""
    position = (property_labels(pipeline.experiment.task) or {})[label]
    model = pipeline.groups[repeat].models[0].work
    value = pipeline.ledger_rows([model.spec_id])[model.spec_id].outcome.outputs["properties"][position, 0]
    matrix = pipeline.all_matrices[f"r{repeat}", "influence"]
    return matrix.train_ids, matrix.row(position).astype(np.float64) * np.sign(value)


# --- the sets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", MADE_FOR)
@pytest.mark.parametrize("repeat", [0, 1])
def test_sets_are_the_sentences_of_highest_and_lowest_influence_on_the_bias(done, label, repeat):
    ids, scores = bias_scores(done.pipeline, label, repeat)
    a, m = done.config.campaign.sets(done.pipeline.scored, repeat, label, "influence")
    score_of = dict(zip(ids.tolist(), scores, strict=True))
    assert {i for i, score in score_of.items() if score > 0} == set(a.tolist())
    assert {i for i, score in score_of.items() if score < 0} == set(m.tolist())
    assert (np.diff([score_of[i] for i in a.tolist()]) <= 0).all(), "A begins with the highest"
    assert (np.diff([score_of[i] for i in m.tolist()]) >= 0).all(), "M begins with the lowest"


def test_edits_step_away_from_a_and_towards_m(done):
    """both: A -1 and M +1; amplify the reverse; never more than there are of a sign, never one in both."""
    pipeline = done.pipeline
    for one in pipeline.planned.fine_tunes:
        a, m = done.config.campaign.sets(pipeline.scored, one.repeat, one.corrected, one.method)
        a, m = a[: one.size].tolist(), m[: one.size].tolist()
        weight_a, weight_m = WEIGHTS[one.action]
        assert not set(a) & set(m)
        assert (one.n_amplifying, one.n_mitigating) == (len(a), len(m))
        edit = pipeline.planned.works[one.work].edit
        assert edit.mode == "select"
        wanted = dict.fromkeys(a, weight_a) | dict.fromkeys(m, weight_m)
        assert dict(zip(edit.ids, edit.weights, strict=True)) == wanted
    assert WEIGHTS["both"] == (-1, 1)
    assert WEIGHTS["amplify"] == (1, -1)


def test_undo_and_reinforce_show_one_set_each(done, tmp_path):
    campaign, scored, plan = planned_with(done, tmp_path, debias__actions=["undo", "reinforce"], debias__sizes=[5])
    for one in plan.fine_tunes:
        a, m = campaign.sets(scored, one.repeat, one.corrected, one.method)
        edit = plan.works[one.work].edit
        shown, weight = (a, -1.0) if one.action == "undo" else (m, 1.0)
        assert edit.ids == tuple(sorted(shown[:5].tolist()))
        assert set(edit.weights) == {weight}
        assert (one.n_amplifying, one.n_mitigating) == ((5, 0) if one.action == "undo" else (0, 5))


def test_what_raises_a_negative_effect_lowers_the_bias(done):
    """`reversed` has A and B exchanged: its effect is minus that of `gender`, and so is every influence."""
    pipeline, campaign = done.pipeline, done.config.campaign
    for repeat in (0, 1):
        assert campaign.sign(pipeline.scored, repeat, "gender") == 1
        assert campaign.sign(pipeline.scored, repeat, "reversed") == -1
        of_gender, of_reversed = (campaign.sets(pipeline.scored, repeat, name, "influence") for name in MADE_FOR[:2])
        for one, other in zip(of_gender, of_reversed, strict=True):
            assert one[:10].tolist() == other[:10].tolist()


def test_signed_bias_takes_the_value_as_it_is(done, tmp_path):
    campaign, scored, _ = planned_with(done, tmp_path, debias__bias="signed")
    for repeat in (0, 1):
        assert campaign.sign(scored, repeat, "reversed") == 1
        (a, m), (other_a, other_m) = (campaign.sets(scored, repeat, name, "influence") for name in MADE_FOR[:2])
        assert (a[:10].tolist(), m[:10].tolist()) == (other_m[:10].tolist(), other_a[:10].tolist())
        absolute = done.config.campaign.sets(done.pipeline.scored, repeat, "gender", "influence")
        assert np.array_equal(absolute[0], a), "a positive effect is the same either way"


def test_the_control_draws_among_sentences_with_influence_anew_in_every_repeat(done):
    pipeline, campaign = done.pipeline, done.config.campaign
    drawn = []
    for repeat in (0, 1):
        ids, scores = bias_scores(pipeline, "gender", repeat)
        a, m = campaign.sets(pipeline.scored, repeat, "gender", "random")
        assert set(a.tolist()) | set(m.tolist()) == set(ids[scores != 0].tolist())
        assert not set(a.tolist()) & set(m.tolist())
        assert abs(len(a) - len(m)) <= 1
        drawn.append(a.tolist())
    assert drawn[0] != drawn[1]
    assert (scores == 0).any(), "sentences of neutral words alone have no influence"


# --- what is trained -----------------------------------------------------------------------------------------------


def test_parents_come_in_earlier_waves(done):
    plan = done.pipeline.planned
    first, second, third = waves(plan.works)
    base, hard = ([plan.works[i].spec_id for i in positions] for positions in (plan.base, plan.hard))
    assert [work.spec_id for work in first] == base
    assert set(hard) <= {work.spec_id for work in second}
    for work in (*second, *third):
        if work.spec_id in hard:
            assert work.spec.parent["spec_id"] in base
            assert (work.keep_steps, work.edit) == ((HARD_STEP,), Edit())
        else:
            assert work.spec.parent["spec_id"] in (base if work in second else hard)
    by_start = {one.start: plan.works[one.work].spec.parent["spec_id"] for one in plan.fine_tunes if one.repeat == 1}
    assert by_start == {"original": base[1], "hard_debiased": hard[1]}


def test_equal_selections_are_trained_once(done):
    """400 and 500 sentences are all there are of a sign."""
    plan = done.pipeline.planned
    assert plan.n_requested == len(plan.fine_tunes) == N_CELLS
    assert len({work.spec_id for work in plan.works}) == len(plan.works)
    of = {(f.corrected, f.method, f.action, f.size, f.start, f.repeat): f.work for f in plan.fine_tunes}
    assert all(work == of[(*key[:3], 500, *key[4:])] for key, work in of.items() if key[3] == 400)
    assert done.result.report.retrained == len(plan.works) == len(committed(done.config))
    assert api.plan(done.config).distinct == len(plan.works)


def test_the_plan_names_every_fine_tune(done):
    columns = read_plan(done.run_dir / "plan.parquet")
    assert len(columns["spec_id"]) == N_CELLS + len(SEEDS)
    plan = done.pipeline.planned
    hard = [i for i, action in enumerate(columns["action"]) if action == "hard_debias"]
    assert [columns["spec_id"][i] for i in hard] == [plan.works[i].spec_id for i in plan.hard]
    assert set(columns["corrected"]) == {*MADE_FOR, ""}


def test_fine_tunes_take_over_the_pair_options_of_the_task(done):
    recipe = done.pipeline.experiment.arms["passes-1"].task.recipe
    given = DEBIAS["task"]["recipe"]
    for option in ("window", "negatives", "subsample", "max_uses"):
        assert getattr(recipe, option) == given[option], option
    assert (recipe.passes, recipe.learning_rate) == (1, 0.01)


def test_without_hard_debiasing_there_is_one_start(done, tmp_path):
    _, _, plan = planned_with(done, tmp_path, debias__starts=["original"])
    assert plan.hard == (-1, -1)
    assert len(waves(plan.works)) == 2
    assert {one.start for one in plan.fine_tunes} == {"original"}


# --- the tables ----------------------------------------------------------------------------------------------------


def test_the_grid_puts_every_recorded_value_in_its_place(done):
    pipeline = done.pipeline
    plan, rows = pipeline.planned, pipeline.rows
    grid = effect_grid(done.config.campaign, pipeline.scored, plan, rows)
    label_ids = property_labels(pipeline.experiment.task) or {}

    def recorded(work: int, label: str) -> float:
        return float(rows[plan.works[work].spec_id].outcome.outputs["properties"][label_ids[label], 0])

    assert (grid.tests, grid.parts) == (["gender", "reversed"], [ALL, FIRST, SECOND])
    whole = {"gender": ("gender", ALL), "reversed": ("reversed", ALL)}
    halves = {"gender_first": ("gender", FIRST), "gender_second": ("gender", SECOND)}
    for one in plan.fine_tunes:
        corrected, made_for = (whole | halves)[one.corrected]
        action = one.action if one.method == "influence" else f"random {one.action}"
        setting = grid.settings.index(Setting(action, one.size, 1, one.start))
        for label, (test, part) in (whole | halves).items():
            found = grid.after(corrected, test, part, made_for)[setting, one.repeat]
            assert found == recorded(one.work, label), (one, label)
        if corrected == "reversed":
            assert np.isnan(grid.after(corrected, "reversed", FIRST)[setting, one.repeat])
    for repeat in range(len(SEEDS)):
        for label, (test, part) in (whole | halves).items():
            assert grid.before("original", test, part)[repeat] == recorded(plan.base[repeat], label)
            assert grid.before("hard_debiased", test, part)[repeat] == recorded(plan.hard[repeat], label)


def test_undoing_what_amplifies_weakens_a_planted_association_and_amplifying_does_not(done):
    table = done.result.results.tables["grid"].set_index(["corrected", "test", "action", "size", "start"])
    changes = {
        action: table.loc[("gender", "gender", action, 400, "original"), "change"] for action in ("both", "amplify")
    }
    assert changes["both"] < 0
    assert changes["both"] < changes["amplify"]


def test_a_refused_property_is_told_and_the_others_are_measured(done):
    assert any(note.startswith("rare was not run") for note in done.result.results.notes)
    tests = done.result.results.tables["tests"]
    assert list(tests.loc[tests["repeat"] == 0, "test"]) == ["gender", "gender_first", "gender_second", "reversed"]


# --- however it is run ---------------------------------------------------------------------------------------------


def lose(run: Finished, lost: set[str]) -> None:
    """Take these rows out of the ledger, and all weights out of the store."""
    ledger = run.pipeline.store.ledger(run.pipeline.experiment.task_id)
    rows = [row for row in ledger.read().rows.values() if row.spec_id not in lost]
    for path in (run.folder / "runs" / "ledger").glob("*/part-*.parquet"):
        path.unlink()
    ledger.publish(rows)
    shutil.rmtree(run.folder / "runs" / "checkpoints")


def test_verify_finds_nothing_and_retrains_give_the_same_bytes(done):
    found = verify(done.pipeline, rerun=4)
    assert found.problems == []
    assert found.checked[-1].startswith("4 retrains done again")


LOST = {
    "every third retrain": lambda plan: {work.spec_id for work in plan.works[::3]},
    "what starts from hard-debiased vectors": lambda plan: {
        plan.works[one.work].spec_id for one in plan.fine_tunes if one.start == "hard_debiased" and one.repeat == 1
    },
    "the hard-debiased vectors themselves": lambda plan: {plan.works[i].spec_id for i in plan.hard},
    "the base models": lambda plan: {plan.works[i].spec_id for i in plan.base},
}


@pytest.mark.parametrize("which", LOST)
def test_lost_parents_are_made_again_and_the_results_stay_the_same_bytes(spoilt, done, which):
    before, lost = committed(spoilt.config), LOST[which](done.pipeline.planned)
    lose(spoilt, lost)
    (spoilt.run_dir / "results" / "grid.csv").unlink()
    pipeline = pipeline_of(spoilt.config)
    pipeline.run()
    assert result_bytes(spoilt.run_dir) == result_bytes(done.run_dir)
    assert committed(spoilt.config).keys() == before.keys()
    assert len(lost) <= pipeline.report.retrained <= len(lost) + 2 * len(SEEDS), "only parents may come twice"
    assert not pipeline.ledger.read().conflicts


def test_lost_weights_that_nothing_needs_are_not_made_again(spoilt):
    shutil.rmtree(spoilt.folder / "runs" / "checkpoints")
    assert pipeline_of(spoilt.config).run().retrained == 0


def test_stage_by_stage_ends_in_the_same_bytes(done, tmp_path):
    config = small_debias(tmp_path)
    for stage in ("train", "score", "plan", "retrain", "analyse"):
        pipeline_of(config).run(stage)
    assert result_bytes(pipeline_of(config).run_dir.path) == result_bytes(done.run_dir)


FAILING = """
from dataclasses import replace
from tasks.recipes.hard_debias import HardDebias

class Failing(HardDebias):
    name = "failing"
    how: str = "raises"

    def train(self, task, training):
        if training.seed != 2:
            return super().train(task, training)
        if self.how == "raises":
            raise ArithmeticError("no direction today")
        trained = super().train(task, replace(training, keep_steps=()))
        return replace(trained, diverged=True)
"""


def failing_config(folder: Path, plugin, how: str):
    """Seed 2 has no hard-debiased vectors."""
    name = plugin("plugin_failing", FAILING)
    return small_debias(
        folder,
        plugins=[name],
        debias__sizes=[3],
        debias__halves={},
        debias__hard_debias={"name": f"{name}:Failing", "how": how},
    )


def test_verify_holds_where_a_parent_diverged(tmp_path, plugin):
    pipeline = pipeline_of(failing_config(tmp_path, plugin, "diverges"))
    pipeline.run()
    assert verify(pipeline).problems == []


@pytest.mark.parametrize(("how", "status"), [("raises", "quarantined"), ("diverges", "diverged")])
def test_a_lost_parent_leaves_holes(tmp_path, plugin, how, status):
    """What would start from it is missing, and nothing else is."""
    config = failing_config(tmp_path, plugin, how)
    result = run_here(config)
    pipeline = pipeline_of(config)
    plan, rows = pipeline.planned, pipeline.rows
    assert result.exit_code == 4
    assert rows[plan.works[plan.hard[1]].spec_id].outcome.status == status
    lost = {
        (one.start, one.repeat) for one in plan.fine_tunes if rows[plan.works[one.work].spec_id].outcome.status != "ok"
    }
    assert lost == {("hard_debiased", 1)}
    grid = effect_grid(config.campaign, pipeline.scored, plan, rows)
    assert np.isfinite(grid.before("original", "gender")).all()
    assert np.isnan(grid.before("hard_debiased", "gender")).tolist() == [False, True]
    assert result.results is not None
    table = result.results.tables["grid"].set_index("start")
    assert set(table.loc["hard_debiased", "n_holes"]) == {1}
    assert set(table.loc["original", "n_holes"]) == {0}
    assert result.results.n_excluded == 2 * len(ACTIONS) * METHODS
    assert run_here(config).report.retrained == 0, "what was given up is not tried again unasked"


def score_ids(folder, **changes) -> list[str]:
    pipeline = pipeline_of(small_debias(folder, **changes))
    method = pipeline.experiment.methods["influence"]
    return [stage.score_id(method) for stage in pipeline.stages.values()]


@pytest.mark.parametrize("change", [{"half_seed": 1}, {"statistic": "mean_difference"}, {"absolute": True}])
def test_other_questions_have_other_scores(tmp_path, change):
    """The lists of a property are in no spec: what is asked must be in the score id."""
    key, value = next(iter(change.items()))
    position = 1 if key == "half_seed" else 0
    asked = score_ids(tmp_path / "other", **{f"task__properties__{position}__{key}": value})
    assert not set(asked) & set(score_ids(tmp_path / "base"))


def test_exchanged_labels_ask_another_question(tmp_path):
    swapped = {"task__properties__0__as": "reversed", "task__properties__3__as": "gender"}
    one, other = (pipeline_of(small_debias(tmp_path / n, **c)).experiment for n, c in (("a", {}), ("b", swapped)))
    assert one.task_id == other.task_id
    assert one.run_hex != other.run_hex
