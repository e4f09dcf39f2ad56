"""`deletion.candidates`: per query only the training examples with the least word overlap may be removed."""

from __future__ import annotations

import numpy as np
import pytest

from influence.ranking import ranked
from orchestrator.campaigns.deletion.campaign import Deletion
from orchestrator.campaigns.deletion.candidates import Candidates
from orchestrator.experiment.checks import checked_experiment
from orchestrator.inspection.explain import explain
from tasks.errors import InputError
from tests.orchestrator.tiny_campaign import pipeline_of, run_here, small_config

N = 24
METHODS = [{"name": "tracin_last"}, {"name": "random"}, {"name": "random_same_label"}]


@pytest.fixture(scope="module")
def restricted(tmp_path_factory):
    """A pipeline up to its plan, in which 24 of 40 training examples may be removed for each query."""
    folder = tmp_path_factory.mktemp("restricted")
    config = small_config(folder, deletion__candidates={"least_overlap": N}, deletion__k=[2, 4], methods=METHODS)
    run_here(config, until="plan")
    return pipeline_of(config)


def brute_force(task, split, row):
    """The cosine of the TF-IDF vectors of one row and every training text, counted token by token in Python."""
    special, n = task.special_ids, len(task.splits["train"])

    def words(split, row):
        return [token for _, _, token in task.token_spans(split, row) if token not in special]

    texts = [words("train", i) for i in range(n)]
    idf = {
        w: np.log((1 + n) / (1 + sum(w in text for text in texts))) + 1
        for text in [*texts, words(split, row)]
        for w in text
    }

    def vector(text):
        found = {w: text.count(w) * idf[w] for w in text}
        norm = np.sqrt(sum(value**2 for value in found.values()))
        return {w: value / norm for w, value in found.items()}

    asked = vector(words(split, row))
    return np.array([sum(asked.get(w, 0) * value for w, value in vector(text).items()) for text in texts])


def test_candidates_are_the_rows_with_the_least_tfidf_cosine_and_ties_go_to_the_smaller_id(restricted):
    experiment, queries = restricted.experiment, restricted.queries
    found = Candidates(least_overlap=N).rows(experiment, queries)
    assert found.shape == (len(queries.ids), N)
    ids = experiment.train.ids
    for query, row in enumerate(queries.rows):
        cosine = brute_force(experiment.task, queries.split, int(row)).astype(np.float32)
        inside, outside = found[query], np.setdiff1d(np.arange(len(ids)), found[query])
        assert cosine[inside].max() <= cosine[outside].min() + 1e-6
        exact = Candidates(least_overlap=len(ids)).rows(experiment, queries)[query]
        zero = exact[cosine[exact] == 0]
        assert np.array_equal(ids[zero], np.sort(ids[zero]))
    assert len({tuple(rows) for rows in found.tolist()}) > 1, "queries with other words have other candidates"


def test_every_removal_set_lies_within_the_candidates_of_its_query(restricted):
    experiment, plan, queries = restricted.experiment, restricted.planned, restricted.queries
    allowed = experiment.train.ids[Candidates(least_overlap=N).rows(experiment, queries)]
    for m, g, k, q, r in np.ndindex(plan.cell.shape):
        removed = set(plan.works[plan.cell[m, g, k, q, r]].edit.ids)
        assert len(removed) == plan.ks[k]
        assert removed <= set(allowed[q].tolist())
    matrix = restricted.matrices["tracin_last"]
    for q, ids in enumerate(allowed):
        columns = np.isin(matrix.train_ids, ids)
        wanted = ranked(matrix.scores[q][columns], matrix.train_ids[columns], "opponents")[:4]
        assert set(plan.works[plan.cell[0, 1, 1, q, 0]].edit.ids) == set(wanted.tolist())


def test_refit_explain_shows_the_examples_that_the_campaign_removes_and_says_so(restricted):
    experiment, plan = restricted.experiment, restricted.planned
    for q, query_id in enumerate(plan.query_ids):
        found = explain(restricted, str(query_id))
        shown = {group: [one.train_id for one in some] for group, some in found.query.examples["tracin_last"].items()}
        for g, group in enumerate(plan.groups):
            assert set(shown[group][:4]) == set(plan.works[plan.cell[0, g, 1, q, 0]].edit.ids)
        assert found.notes == [f"only the {N} of 40 training examples that may be removed for this query are ranked"]
    assert experiment.campaign.removable(experiment, restricted.queries).shape == (len(plan.query_ids), N)


def test_controls_draw_for_every_query_and_the_plan_counts_what_that_costs(restricted):
    experiment, plan, queries = restricted.experiment, restricted.planned, restricted.queries
    n_queries, n_repeats = plan.cell.shape[3:]
    assert len(np.unique(plan.cell[1, :, :, :, 0])) == 2 * 2 * n_queries, "no set of random serves two queries"
    cells, bound = experiment.campaign.bounds(experiment, n_queries)
    assert cells == 3 * 2 * 2 * n_queries * n_repeats == plan.n_requested
    assert bound == n_repeats * (1 + 4 * 3 * n_queries) >= len(plan.works)
    labels = dict(zip(experiment.train.ids.tolist(), experiment.train.labels.tolist(), strict=True))
    for g, q in np.ndindex(2, n_queries):
        drawn = [labels[i] == queries.labels[q] for i in plan.works[plan.cell[2, g, 1, q, 0]].edit.ids]
        assert all(drawn) if g == 0 else not any(drawn)


def test_without_a_restriction_nothing_changes_and_with_one_only_the_name_of_the_run_does(tmp_path):
    free = small_config(tmp_path)
    run_here(free, until="plan")
    everything = small_config(tmp_path, deletion__candidates={"least_overlap": 40})
    run_here(everything, until="plan")
    one, other = pipeline_of(free), pipeline_of(everything)
    assert "candidates" not in free.campaign.identity()
    assert one.experiment.run_hex != other.experiment.run_hex
    scored = [i for i, m in enumerate(one.planned.methods) if m != "random"]
    of = [[[p.works[w].spec_id for w in p.cell[m].ravel()] for m in scored] for p in (one.planned, other.planned)]
    assert of[0] == of[1]


@pytest.mark.parametrize(("n", "k"), [(4, [5]), (41, [5])])
def test_candidates_that_do_not_fit_are_refused_in_one_line(tmp_path, n, k):
    config = small_config(tmp_path, deletion__k=k, deletion__candidates={"least_overlap": n})
    wanted = rf"deletion\.candidates\.least_overlap: {n}; allowed: 5 \(the largest k\) to 40 \(all training examples\)$"
    with pytest.raises(InputError, match=wanted):
        checked_experiment(config, None)


def test_too_few_candidates_of_a_label_are_refused_before_anything_is_trained(tmp_path):
    config = small_config(tmp_path, deletion__candidates={"least_overlap": 12}, deletion__k=[9], methods=METHODS)
    with pytest.raises(
        InputError, match=r"deletion\.k: random_same_label has \d training examples? among the candidates of a"
    ):
        checked_experiment(config, None)


def test_an_unknown_key_of_candidates_is_named(tmp_path):
    with pytest.raises(InputError, match=r"deletion\.candidates\.most_overlap"):
        small_config(tmp_path, deletion__candidates={"most_overlap": 3})
    assert Deletion(k=(3,)).candidates is None
