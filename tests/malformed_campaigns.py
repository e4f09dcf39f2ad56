"""Malformed configs of the campaigns leave_one_out and debias and of their tasks: cases of test_malformed_inputs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from tests.orchestrator.small_campaigns import DEBIAS, LISTS, LOO, write_corpus

Case = tuple[str, Callable[[Any], Any], str]  # what it is called, what damages the folder, what the line names
BASES = {"loo": LOO, "debias": DEBIAS}


def use(bad: Any, base: str) -> None:
    """Damage this sound config instead of the usual one; with it comes the corpus that debias asks for."""
    bad.config = {**copy.deepcopy(BASES[base]), "output": "runs"}
    write_corpus(bad.folder / "corpus.jsonl")


def changed(base: str, dotted: str, value: Any, names: str) -> Case:
    """As `setting`, of a campaign of BASES; `names` begins with the key, or with the arm."""

    def damage(bad: Any) -> None:
        use(bad, base)
        bad.set(dotted, value)

    where = "config.yaml " if names.startswith("(arm") else "config.yaml: "
    return f"{base} {dotted}={json.dumps(value)}"[:90], damage, where + names


def corpus_of(text: str, names: str) -> Case:
    def damage(bad: Any) -> None:
        use(bad, "debias")
        (bad.folder / "corpus.jsonl").write_text(text)

    return f"corpus {text[:30]!r}", damage, names


CAMPAIGN_CASES: list[Case] = [
    # task gaussians, model and recipes of deep embedded clustering
    changed("loo", "task.data.per_class", 0, "task.data.per_class: 0"),
    changed("loo", "task.data.std", -1.0, "task.data.std: -1"),
    changed("loo", "task.data.means", [[0, 0], [1]], "task.data: "),
    changed("loo", "task.data.means", [[0, 0]], "task.data.means: "),
    changed("loo", "task.data.sed", 3, "task.data.sed: unknown key"),
    changed("loo", "task.model", {"name": "dec", "hidden": 0}, "(arm dec.0): task.model.hidden: 0"),
    changed("loo", "task.model", {"name": "text_cnn"}, "(arm dec.0): task.model.name: 'text_cnn' fits"),
    changed(
        "loo",
        "leave_one_out.arms.dec",
        {"recipe": {"name": "finetune"}},
        "(arm dec.0): task.recipe.name: 'finetune' fits",
    ),
    changed("loo", "task.recipe.objective", "kl", "(arm nll.0): task.recipe.objective: 'kl'"),
    changed("loo", "task.recipe.steps", 0, "(arm dec.0): task.recipe.steps: 0"),
    changed("loo", "task.recipe.learning_rate", 0, "(arm dec.0): task.recipe.learning_rate: 0"),
    changed("loo", "task.measure", [{"split": "test"}], "(arm dec.0): task.measure.0.split: no split 'test'"),
    # campaign leave_one_out and its methods
    changed("loo", "leave_one_out.points", 2, "leave_one_out.points: 2"),
    changed("loo", "leave_one_out.points", 99, "leave_one_out.points: 99 of 12"),
    changed("loo", "leave_one_out.stack", 0, "leave_one_out.stack: 0"),
    changed("loo", "leave_one_out.threshold", 1.5, "leave_one_out.threshold: 1.5"),
    changed("loo", "leave_one_out.arms", {}, "leave_one_out.arms: {}"),
    changed("loo", "leave_one_out.arms", {"a.b": {}}, "leave_one_out"),
    changed("loo", "leave_one_out.arms", {"nll": {"recipe.momentum": 1}}, "(arm nll.0): task.recipe.momentum"),
    changed("loo", "leave_one_out.over", {"data.seed": []}, "leave_one_out: "),
    changed("loo", "leave_one_out.over", {"data.seed": [1, "1"]}, "leave_one_out: "),
    changed("loo", "leave_one_out.over", {"data.seed": [1], "data.std": [1]}, "leave_one_out.over: "),
    changed("loo", "leave_one_out.over", {"data.sed": [1]}, "(arm dec.1): task.data.sed: unknown key"),
    changed("loo", "leave_one_out.comparisons", [{"methods": "exact"}], "leave_one_out.comparisons.0"),
    changed("loo", "leave_one_out.comparisons", [{"method": "magic"}], "leave_one_out.comparisons.0.method: 'magic'"),
    changed("loo", "methods.0.solver", {"name": "newton"}, "methods[0].solver"),
    changed("loo", "methods.0.solver", {"name": "exact", "damping": -1}, "methods[0].solver.damping: -1"),
    changed("loo", "methods.0.solver", {"name": "lissa", "depth": 0}, "methods[0].solver.depth: 0"),
    changed(
        "loo",
        "methods.0.solver",
        {"name": "exact", "depth": 5},
        "methods[0].solver: {'depth': 5, 'name': 'exact'}: unknown key 'depth'",
    ),
    changed("loo", "methods.0.parameters", [], "methods[0].parameters: []"),
    changed("loo", "scores", {"models": 2}, "scores.models: 2"),
    changed("loo", "scores", {"checkpoints": [4]}, "scores.checkpoints: "),
    # task word_vectors: corpus, vocabulary, model, recipe, properties
    changed("debias", "task.data.train.path", "nowhere.jsonl", "task.data.train.path: "),
    changed("debias", "task.data.train.label", "text", "task.data.train: "),
    changed("debias", "task.data.sentences", "halved", "task.data.sentences: 'halved'"),
    changed("debias", "task.data.min_tokens", 0, "task.data.min_tokens: 0"),
    changed("debias", "task.vocabulary.min_count", 0, "task.vocabulary.min_count: 0"),
    changed("debias", "task.vocabulary.min_count", 9999, "task.vocabulary: none of 160 sentences"),
    changed("debias", "task.model.dim", 0, "task.model.dim: 0"),
    changed("debias", "task.model", {"name": "dec"}, "task.model.name: 'dec' fits"),
    changed("debias", "task.recipe.window", 0, "task.recipe.window: 0"),
    changed("debias", "task.recipe.subsample", 1.0, "task.recipe.subsample: 1.0"),
    changed("debias", "task.recipe.min_learning_rate", 1, "task.recipe: "),
    changed("debias", "task.watch", ["unheard"], "task.watch.0: 'unheard'"),
    changed("debias", "task.properties.0.name", "weet", "task.properties.0.name: "),
    changed("debias", "task.properties.0.ddof", 2, "task.properties.0.ddof: 2"),
    changed("debias", "task.properties.0.as", "a b", "task.properties.0.as: 'a b'"),
    changed("debias", "task.properties.1.as", "gender", "task.properties.1: the label 'gender'"),
    changed("debias", "task.properties.0.x", ["he"], "task.properties.0: the test keeps too few words"),
    changed("debias", "task.properties.0.x", LISTS["y"], "task.properties.0: the test: the word 'she' stands in"),
    changed("debias", "task.properties.1.min_words_half", 9, "task.properties.1: the test cannot be halved"),
    changed("debias", "task.properties.0", {"name": "weat", "test": "carrer"}, "task.properties.0.test: "),
    changed("debias", "task.properties.0", {"name": "displacement", "word": "unheard"}, "task.properties.0.word: "),
    changed("debias", "task.properties.0", {"name": "neighbour", "word": "he", "near": []}, "task.properties.0.near: "),
    corpus_of("", "corpus.jsonl"),
    corpus_of('{"title": "no text"}\n', "corpus.jsonl"),
    corpus_of('{"text": "he"}\n{oops\n', "corpus.jsonl"),
    # campaign debias
    changed("debias", "debias.correct", [], "debias.correct: []"),
    changed("debias", "debias.correct", ["gender", "rare"], "debias.correct: keeps too few words"),
    changed("debias", "debias.correct", ["reversed"], "debias: "),
    changed("debias", "debias.halves", {"gender": ["gender_first"]}, "debias.halves.gender"),
    changed("debias", "debias.bias", "squared", "debias.bias: 'squared'"),
    changed("debias", "debias.actions", ["undo", "undo"], "debias.actions: "),
    changed("debias", "debias.sizes", [0], "debias.sizes.0: 0"),
    changed("debias", "debias.passes", [], "debias.passes: []"),
    changed("debias", "debias.starts", ["random"], "debias.starts.0: 'random'"),
    changed("debias", "debias.permutations", 0, "debias.permutations: 0"),
    changed("debias", "debias.finetune", {"name": "reinforce", "passes": 2}, "debias: "),
    changed("debias", "debias.finetune", {"learning_rate": 1}, "(arm passes-1): task.recipe.name: is missing"),
    changed("debias", "debias.finetune", {"name": "reinforce", "rate": 1}, "(arm passes-1): task.recipe.rate"),
    changed(
        "debias",
        "debias.hard_debias",
        {"name": "hard_debias", "definitional": [["un", "heard"]]},
        "(arm hard_debias): task.recipe.definitional: 0 pairs",
    ),
    changed("debias", "debias.hard_debias", {"name": "hard_debias", "specific": "w.json"}, "(arm hard_debias): task"),
    changed("debias", "queries", {"split": "properties", "ids": [0]}, "queries: 'reversed' is corrected"),
    changed("debias", "measurement", "predicted_probability", "measurement: "),
    changed("debias", "methods", [{"name": "random"}], "methods: no method has scores"),
]
