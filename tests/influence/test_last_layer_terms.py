"""The diagnostic `last_layer_terms` against the terms in dense form and against rankings whose overlap is known."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from small_task import SmallCNN, SmallTask, autograd_gradients, checkpoint, query_block

from influence.diagnostic import ScoredModels
from influence.diagnostics.last_layer_terms import LastLayerTerms, last_layer_products
from influence.matrix import ScoreMatrix
from influence.methods.tracin_last import TracInLast
from influence.scoring import Scorer
from tasks.errors import InputError

N_TRAIN, K, TOP = 30, 6, 3
TASK = SmallTask(SmallCNN(), dtype=torch.float64)
POINTS = [checkpoint(TASK, seed, step=seed, weight=0.1 * seed) for seed in (1, 2)]
QUERIES, IDS = query_block(TASK, (4, 0, 7, 2)), TASK.splits["train"].ids


def models(scores, **more):
    matrices = {label: ScoreMatrix(QUERIES.ids, IDS, np.asarray(s, np.float32)) for label, s in scores.items()}
    return ScoredModels(TASK, POINTS, QUERIES, {label: TracInLast() for label in scores}, matrices, **more)


def diagnosed(scores):
    found = LastLayerTerms(k=K, top=TOP).compute(models(scores))
    return {
        name: [dict(zip(t, values, strict=True)) for values in zip(*t.values(), strict=True)]
        for name, t in found.items()
    }


def test_the_terms_are_those_of_tracin_last():
    """d . d is the product of the bias gradients, and the term of one checkpoint is d . d times a . a."""
    terms = last_layer_products(models({}), 7)
    labels = TASK.splits["train"].labels
    expected = {"saliency": 0.0, "loss_saliency": 0.0}
    for point in POINTS:
        ours = autograd_gradients(TASK, point, "test", QUERIES.rows, QUERIES.labels)
        theirs = autograd_gradients(TASK, point, "train", range(N_TRAIN), labels)
        d_q, d_i = (torch.stack([g["linear.bias"] for g in side]).numpy() for side in (ours, theirs))
        expected["saliency"] = expected["saliency"] + point.weight * d_q @ d_i.T
        expected["loss_saliency"] = expected["loss_saliency"] + point.weight * np.linalg.norm(d_i, axis=1)[None].repeat(
            4, 0
        )
    for name, values in expected.items():
        np.testing.assert_allclose(terms[name], values, rtol=1e-10)
    alone = ScoredModels(TASK, POINTS[:1], QUERIES)
    terms, method = last_layer_products(alone, 64), TracInLast()
    scores = Scorer(TASK, POINTS[:1], QUERIES, {"m": method}, {}).score_range(0, N_TRAIN)["m"]
    np.testing.assert_allclose(terms["saliency"] * terms["similarity"] / POINTS[0].weight, scores, rtol=1e-5, atol=1e-9)


def test_a_ranking_by_a_term_overlaps_it_whole_and_others_are_counted():
    terms = last_layer_products(models({}), 64)
    found = diagnosed({**terms, "reversed": -terms["saliency"]})
    whole = {row["method"]: row for row in found[""]}
    for name in terms:
        assert whole[name][f"overlap_{name}"] == K
        assert whole[name]["expected"] == K**2 / N_TRAIN
    assert whole["reversed"]["overlap_saliency"] == 0
    for row in found["queries"]:
        position = QUERIES.ids.tolist().index(row["query_id"])
        values = -terms["saliency"] if row["method"] == "reversed" else terms[row["method"]]
        best = {int(i) for i in np.argsort(-values[position].astype(np.float32), kind="stable")[:K]}
        other = {int(i) for i in np.argsort(-terms["similarity"][position], kind="stable")[:K]}
        assert row["overlap_similarity"] == len(best & other)


def test_a_proponent_that_is_first_for_one_query_and_last_for_the_others_recurs_in_all_of_them():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(4, N_TRAIN))
    scores[0, 5], scores[1:, 5] = 99, -99
    apart = np.zeros((4, N_TRAIN)) + rng.normal(size=(4, N_TRAIN)) * 1e-3
    for position in range(4):  # every query has top examples of its own
        apart[position, 6 * position : 6 * position + 3] = [9, 8, 7]
        apart[position, 6 * position + 3 : 6 * position + 6] = [-9, -8, -7]
    found = diagnosed({"same": scores, "apart": apart})
    rows = {(row["method"], row["query_id"]): row for row in found["queries"]}
    first = rows["same", int(QUERIES.ids[0])]
    assert (first["first_proponent_id"], first["recurrence"]) == (int(IDS[5]), 1.0)
    assert {row["recurrence"] for (label, _), row in rows.items() if label == "apart"} == {0.0}
    whole = {row["method"]: row for row in found[""]}
    assert whole["same"]["most_recurrent"] == 1.0
    assert whole["apart"]["recurrence"] == 0.0


def test_a_query_without_scores_counts_nowhere():
    scores = np.random.default_rng(2).normal(size=(4, N_TRAIN))
    scores[1] = np.nan
    found = diagnosed({"m": scores})
    assert found[""][0]["n_queries"] == 3
    row = found["queries"][1]
    assert (row["overlap_saliency"], row["first_proponent_id"], row["recurrence"]) == (None, None, None)


def test_the_batch_size_changes_no_term_beyond_rounding():
    whole, small = last_layer_products(models({}), 64), last_layer_products(models({}), 1)
    for name, values in whole.items():
        np.testing.assert_allclose(small[name], values, rtol=1e-9, atol=1e-15)


def test_it_refuses_what_it_cannot_compare():
    methods = {"m": TracInLast()}
    with pytest.raises(InputError, match=r"c: diagnose.0.k: 100: must be below the number of train examples, 30"):
        LastLayerTerms().check(TASK, Path(), methods, 1, "c: diagnose.0")
    with pytest.raises(InputError, match=r"c: diagnose.0.methods: 'n' is no method with scores; allowed: m"):
        LastLayerTerms(k=5, top=3, methods=("n",)).check(TASK, Path(), methods, 1, "c: diagnose.0")
    assert LastLayerTerms(methods=("m",)).reads_scores_of({"l": TracInLast(), **methods}) == ["m"]


@pytest.mark.parametrize(("options", "methods"), [({"methods": []}, {"m": TracInLast()}), ({}, {})])
def test_it_refuses_to_diagnose_no_method(options, methods):
    with pytest.raises(
        InputError, match=r"^c: diagnose.0.methods: names no method with scores, so there is no ranking"
    ):
        LastLayerTerms(k=5, top=5, **options).check(TASK, Path(), methods, 1, "c: diagnose.0")


def test_a_first_proponent_whose_id_is_text_in_the_data_is_named_by_it():
    task, names = copy.copy(TASK), tuple(f"doc-{number}" for number in IDS)
    task.splits = {**TASK.splits, "train": dataclasses.replace(TASK.splits["train"], given_ids=names)}
    scores = np.random.default_rng(0).normal(size=(len(QUERIES.ids), N_TRAIN))
    scores[1] = np.nan
    found = LastLayerTerms(k=K, top=TOP).compute(dataclasses.replace(models({"m": scores}), task=task))["queries"]
    firsts = [None if first is None else f"doc-{first}" for first in found["first_proponent_id"]]
    assert list(found["given_first_proponent_id"]) == firsts
    assert firsts.count(None) == 1
