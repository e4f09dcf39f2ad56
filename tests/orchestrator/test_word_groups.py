"""Groups of a deletion campaign that replace key words, and the measurement `correct`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from influence.methods.tracin_we import TracInWE
from influence.scoring import word_contributions
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.query_checks import key_words_check
from orchestrator.campaigns.deletion.correct import correct_note, correct_table
from orchestrator.experiment.checks import checked_experiment
from orchestrator.inspection.verify import verify
from orchestrator.runtime import worker
from orchestrator.stages.workforce import Stopped
from tasks.errors import InputError
from tasks.model import Model
from tests.orchestrator.tiny_campaign import Finished, pipeline_of, result_bytes, run_here, small_config

METHODS = [{"name": "tracin_we"}, {"name": "tracin_last"}, {"name": "random"}]
WORDS = {"deletion__groups": ["opponents", "opponent_words"], "measurement": "correct", "methods": METHODS}


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp("words")
    config = small_config(folder, **WORDS)
    return Finished(folder, config, run_here(config))


@pytest.fixture(scope="module")
def pipeline(words):
    return words.pipeline


def edits_of(plan, method, group, k, query, repeat=0):
    m, g = plan.methods.index(method), plan.groups.index(group)
    return plan.works[plan.cell[m, g, k, query, repeat]].edit


def tokens_of(pipeline, train_id):
    task = pipeline.experiment.task
    return [token for _, _, token in task.token_spans("train", int(task.splits["train"].rows_of([train_id])[0]))]


@pytest.mark.parametrize("method", ["tracin_we", "tracin_last"])
def test_the_key_word_of_every_top_opponent_is_replaced_at_all_its_positions(pipeline, method):
    plan, queries = pipeline.planned, pipeline.queries
    n_replaced = 0
    for query, k in np.ndindex(len(queries.ids), 2):
        opponents = edits_of(plan, method, "opponents", k, query)
        edit = edits_of(plan, method, "opponent_words", k, query)
        pairs = [(int(queries.ids[query]), i) for i in opponents.ids]
        parts = word_contributions(pipeline.experiment.task, TracInWE(), pipeline.scores.checkpoints(), queries, pairs)
        wanted = {}
        for (_, i), found in parts.items():
            own = [(value, token) for token, _, value in found if token not in pipeline.experiment.task.special_ids]
            if own and min(own)[0] < 0:
                wanted[i] = tuple(p for p, token in enumerate(tokens_of(pipeline, i)) if token == min(own)[1])
        assert dict(edit.replaced) == wanted
        assert edit.ids == ()
        n_replaced += len(wanted)
    assert n_replaced > 0


def test_a_control_replaces_random_words_which_all_queries_share(pipeline):
    plan = pipeline.planned
    control = plan.cell[2, 1]
    assert (control == control[:, :1]).all()
    drawn = [edits_of(plan, "random", "opponent_words", 1, 0, repeat) for repeat in range(2)]
    assert drawn[0].replaced != drawn[1].replaced
    for repeat, edit in enumerate(drawn):
        assert {i for i, _ in edit.replaced} == set(edits_of(plan, "random", "opponents", 1, 0, repeat).ids)
        for i, positions in edit.replaced:
            tokens = tokens_of(pipeline, i)
            assert positions == tuple(p for p, token in enumerate(tokens) if token == tokens[positions[0]])
            assert tokens[positions[0]] not in pipeline.experiment.task.special_ids


def test_the_other_groups_keep_their_retrains_and_campaigns_without_words_their_name(words, pipeline, tmp_path):
    plain = small_config(tmp_path, **{**WORDS, "deletion__groups": ["opponents"]})
    assert {"candidates", "replace_by"}.isdisjoint(plain.campaign.identity())
    run_here(plain, until="plan")
    assert list(pipeline_of(plain).experiment.stored_scores) == ["tracin_we", "tracin_last"]
    assert {work.spec_id for work in pipeline_of(plain).planned.works} < {w.spec_id for w in pipeline.planned.works}
    masks = small_config(tmp_path, **WORDS, deletion__replace_by="unknown")
    assert checked_experiment(masks, None).run_hex != pipeline.experiment.run_hex


def test_correct_has_the_share_of_correct_answers_and_starts_with_the_references(pipeline):
    experiment, plan, queries, rows = pipeline.experiment, pipeline.planned, pipeline.queries, pipeline.rows
    labels = experiment.task.splits["test"].labels

    def right(work, query):
        outputs = rows[plan.works[work].spec_id].outcome.outputs["test"]
        return float(outputs[queries.rows[query]].argmax() == labels[queries.rows[query]])

    table = pipeline.results.tables["correct"]
    assert table.iloc[0][["method", "group", "k"]].tolist() == ["reference", "none", 0]
    cells = list(np.ndindex(plan.cell.shape[3:]))
    assert table.iloc[0]["correct"] == pytest.approx(np.mean([right(plan.reference[r], q) for q, r in cells]))
    for row, (m, g, k) in zip(table.iloc[1:].itertuples(), np.ndindex(plan.cell.shape[:3]), strict=True):
        assert row.correct == pytest.approx(np.mean([right(plan.cell[m, g, k, q, r], q) for q, r in cells]))
    curves = pipeline.results.tables["curves"]
    np.testing.assert_allclose(
        curves.delta, table.iloc[1:]["correct"].to_numpy() - table.iloc[0]["correct"], atol=1e-12
    )
    assert any("k = 0" in note for note in pipeline.results.notes)


def test_an_interrupted_campaign_of_words_resumes_to_the_same_tables(words, tmp_path, monkeypatch):
    config, calls = small_config(tmp_path, **WORDS), []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return retrain(*arguments, **options)

    retrain = worker.retrain
    with monkeypatch.context() as patched:
        patched.setattr(worker, "retrain", interrupted)
        with pytest.raises(Stopped, match="interrupted"):
            run_here(config)
    again = run_here(config)
    assert 0 < again.report.retrained < words.result.report.retrained
    assert result_bytes(again.run_dir) == result_bytes(words.run_dir)


def test_the_ledger_keeps_what_was_replaced_and_the_run_verifies(words, pipeline):
    rows = pipeline.rows
    assert all(rows[work.spec_id].edit == work.edit for work in pipeline.planned.works)
    assert any(row.edit.replaced for row in rows.values())
    assert verify(words.pipeline, rerun=3).problems == []


def test_the_checks_have_the_share_of_examples_in_which_a_word_is_replaced(pipeline):
    plan = pipeline.planned
    (check,) = [check for check in pipeline.results.checks if check.name == "key_words"]
    shares = {(method, group, k): share for method, group, k, share in check.numbers["shares"]}
    assert {group for _, group, _ in shares} == {"opponent_words"}
    edits = [edits_of(plan, "tracin_last", "opponent_words", 1, query) for query in range(3)]
    assert shares["tracin_last", "opponent_words", 5] == pytest.approx(np.mean([len(e.replaced) for e in edits]) / 5)
    assert shares["random", "opponent_words", 5] == 1
    assert check.status == ("passed" if min(shares.values()) >= 0.5 else "caution")


def test_few_key_words_ask_for_caution():
    shares = {("tracin", "opponent_words", 5): 0.4, ("random", "opponent_words", 5): 1.0}
    check = key_words_check(shares)
    assert check.status == "caution"
    assert "40.0% on average (tracin, opponent_words, k 5)" in check.sentence
    assert key_words_check({**shares, ("tracin", "opponent_words", 5): 0.5}).status == "passed"


def test_the_report_shows_the_shares_beside_those_without_any_edit(words):
    page = (words.run_dir / "report.html").read_text()
    assert "Share of correct answers" in page
    assert "Without any removal (k = 0)" in page
    assert "padding, which is hidden from attention" in page


def cells_of(values, reference):
    return Cells(("m",), ("opponents",), (5,), range(4), range(5), values - reference, values, reference, controls=())


def test_shares_have_known_values_and_intervals_within_0_and_1():
    reference = np.zeros((4, 5))
    reference[0] = 1  # one of four mistakes vanishes by retraining alone
    values = np.broadcast_to(np.array([1.0, 1, 1, 0])[:, None], (1, 1, 1, 4, 5)).copy()
    values[..., 1, 2] = 0
    table = correct_table(cells_of(values, reference))
    assert table["correct"].tolist() == pytest.approx([0.25, 0.7])
    assert table["n_queries"].tolist() == [4, 4]
    assert (table[["ci_low", "ci_fixed_low"]] >= 0).all().all()
    assert (table[["ci_high", "ci_fixed_high"]] <= 1).all().all()
    note = correct_note(table, mistakes=True)
    assert "25.0% of the answers are correct" in note
    assert "regression to the mean" in note
    assert "regression" not in correct_note(table, mistakes=False)


def test_without_a_complete_repeat_no_share_is_known():
    table = correct_table(cells_of(np.full((1, 1, 1, 4, 5), np.nan), np.zeros((4, 5))))
    assert correct_note(table, mistakes=True).startswith("No query has a complete repeat")


def test_a_token_that_the_tokeniser_lacks_is_refused_before_anything_is_trained(tmp_path):
    config = small_config(tmp_path, **WORDS, deletion__replace_by="mask")
    with pytest.raises(
        InputError, match=r"deletion\.replace_by: the tokeniser has no token 'mask'; allowed: pad, unknown$"
    ):
        checked_experiment(config, None)


@pytest.mark.parametrize(
    ("deletion", "problem"),
    [
        ({"deletion__replace_by": "unknown"}, "replace_by 'unknown' needs one of the groups"),
        (
            {"deletion__groups": ["opponent_words"], "deletion__mode": "drop"},
            "mode 'drop' needs a group that removes examples; opponent_words remove none",
        ),
    ],
)
def test_options_without_an_effect_are_refused(tmp_path, deletion, problem):
    with pytest.raises(InputError, match=problem):
        small_config(tmp_path, **deletion)


@pytest.mark.parametrize(("problem", "is_refused"), [("it counts them", True), ("", False)])
def test_padding_that_moves_other_words_is_refused(tmp_path, monkeypatch, problem, is_refused):
    config = small_config(tmp_path, **WORDS)
    monkeypatch.setattr(Model, "hidden_token_problem", lambda self, base_dir: problem)
    if is_refused:
        with pytest.raises(
            InputError, match=r"deletion\.replace_by: 'pad' hides .* it counts them; allowed: mask, unknown$"
        ):
            checked_experiment(config, None)
    else:
        checked_experiment(config, None)


def test_words_and_candidates_go_together(tmp_path):
    config = small_config(tmp_path, **WORDS, deletion__candidates={"least_overlap": 24})
    run_here(config, until="plan")
    plan = pipeline_of(config).planned
    for query in range(3):
        opponents, edit = (edits_of(plan, "tracin_we", group, 1, query) for group in plan.groups)
        assert {i for i, _ in edit.replaced} <= set(opponents.ids)
    assert dataclasses.replace(edit) == edit


OWN = """
from influence.methods.tracin_we import TracInWE


class Mine(TracInWE):
    \"\"\"A method that decomposes its scores by word.\"\"\"

    name = "mine"
"""


def test_the_identity_of_key_words_has_the_source_of_a_users_own_method(tmp_path, plugin):
    module = plugin("my_words", OWN)
    own = {"methods": [{"name": f"{module}:Mine", "as": "mine"}], "plugins": [module]}
    of = []
    for changes in (own, {}):
        found = checked_experiment(small_config(tmp_path, **{**WORDS, **changes}), None)
        [key_words] = [method for label, method in found.stored_scores.items() if label not in found.scored]
        of.append(found.main.method_identity(key_words)["of"])
    assert list(of[0]["sources"]) == [module]
    assert "sources" not in of[1]
