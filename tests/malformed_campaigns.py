"""Malformed configs of campaigns, of their tasks, recipes and observers: cases of test_malformed_inputs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from tests.orchestrator.msgs_grid import MSGS_GRID
from tests.orchestrator.small_campaigns import DEBIAS, LISTS, LOO, write_corpus
from tests.orchestrator.tiny_campaign import CONFIG as PLANTED

Case = tuple[
    str, Callable[[Any], Any], str
]  # name of the case, function that damages the folder, what the message names
BASES = {"loo": LOO, "debias": DEBIAS, "grid": MSGS_GRID, "planted": PLANTED}
OBSERVER = "confound_influence_difference"
TUNING = {**MSGS_GRID["task"]["recipe"], "name": "influence_tuning"}
TEXTLEN = {**MSGS_GRID["task"], "name": "textlen"}


def use(bad: Any, base: str) -> None:
    """Replace the usual config by this valid one, with the corpus that debias needs, before it is damaged."""
    bad.config = {**copy.deepcopy(BASES[base]), "output": "runs"}
    write_corpus(bad.folder / "corpus.jsonl")


def changed(base: str, dotted: str, value: Any, names: str) -> Case:
    """Return a case like `setting`, for a campaign of BASES; `names` begins with the key, or with the arm."""

    def damage(bad: Any) -> None:
        use(bad, base)
        bad.set(dotted, value)

    where = "config.yaml " if names.startswith("(arm") else "config.yaml: "
    return f"{base} {dotted}={json.dumps(value)}"[:90], damage, where + names


def observing(options: dict[str, Any], names: str, arm: str = "") -> Case:
    return changed("grid", "observe", [{"name": OBSERVER, **options}], f"{arm}observe.0{names}")


def tuning(options: dict[str, Any], names: str) -> Case:
    """Return a case with options of influence_tuning, in every arm."""
    return changed("grid", "task.recipe", {**TUNING, **options}, f"(arm finetuning.0): task.recipe{names}")


def planted_same_label(k: list[int], names: str) -> Case:
    """Return a case with the control that draws by label, and removal sets of these sizes."""

    def damage(bad: Any) -> None:
        use(bad, "planted")
        bad.set("methods.2", {"name": "random_same_label"})
        bad.set("deletion.k", k)

    return f"random_same_label k={k}", damage, f"config.yaml: {names}"


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
    # controls
    changed("planted", "methods.2", {"name": "tracin_last", "as": "random_same_label"}, "methods[2].as: "),
    changed("planted", "methods.2", {"name": "random_same_label", "as": "random"}, "methods[2].as: "),
    planted_same_label([2, 39], "deletion.k: random_same_label has "),
    changed(
        "debias",
        "methods",
        [*DEBIAS["methods"], {"name": "random_same_label"}],
        f"methods[{len(DEBIAS['methods'])}]: random_same_label draws by label",
    ),
    # campaign leave_one_out and its methods
    changed("loo", "leave_one_out.points", 2, "leave_one_out.points: 2"),
    changed("loo", "leave_one_out.points", 99, "leave_one_out.points: 99 is more than the 12"),
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
    changed("debias", "task.properties.0.x", LISTS["y"], "task.properties.0: the test: the word 'she' occurs in"),
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
    # campaign recipe_grid: arms, grids, splits
    changed("grid", "recipe_grid", {}, "recipe_grid.arms: is missing"),
    changed("grid", "recipe_grid.arm", [], "recipe_grid.arm: unknown key 'arm'; allowed: ablate, arms, baseline"),
    changed("grid", "recipe_grid.arms", [], "recipe_grid.arms: []"),
    changed("grid", "recipe_grid.arms", {"finetuning": {}}, "recipe_grid.arms: {'finetuning': {}}"),
    changed("grid", "recipe_grid.arms.1.sett", {}, "recipe_grid.arms.1.sett: unknown key 'sett'; allowed: grid, name,"),
    changed("grid", "recipe_grid.arms.1", {"set": {}}, "recipe_grid.arms.1.name: is missing"),
    changed("grid", "recipe_grid.arms.1.name", "a b", "recipe_grid.arms.1.name: 'a b'"),
    changed("grid", "recipe_grid.arms.1.name", "finetuning", "recipe_grid.arms: "),
    changed("grid", "recipe_grid.arms.1.paper", "75%", "recipe_grid.arms.1.paper: '75%'"),
    changed("grid", "recipe_grid.arms.1.paper", 75.33, "recipe_grid.arms.1.paper: 75.33: 75.33 is not a fraction"),
    changed("grid", "recipe_grid.arms.1.set", {"recipe.name": "magic"}, "(arm long.0): task.recipe.name: unknown rec"),
    changed("grid", "recipe_grid.arms.1.set", {"recipe.epochs": "two"}, "(arm long.0): task.recipe.epochs: 'two'"),
    changed("grid", "recipe_grid.arms.1.set", {"recipe.name.x": 1}, "(arm long.0): task.recipe.name.x: recipe.name is"),
    changed("grid", "recipe_grid.arms.1.set", {"name": "none"}, "(arm long.0): task.name: unknown task 'none'"),
    changed(
        "grid",
        "recipe_grid.arms.1.set",
        {"measure": [{"split": "train"}]},
        "(arm long.0): recipe_grid.splits.dev: 'dev' is not measured; task.measure lists train",
    ),
    changed("grid", "recipe_grid.grid", {"recipe.epochs": 3}, "recipe_grid.grid.recipe.epochs: 3"),
    changed("grid", "recipe_grid.grid", {"recipe.momentun": [0.9]}, "(arm finetuning): task.recipe.momentun: unknown"),
    changed("grid", "recipe_grid.grid", {"task.recipe.epochs": [1]}, "(arm finetuning): task.task: unknown key 'task'"),
    changed("grid", "recipe_grid.grid", {"recipe.epochs": [1, 0]}, "(arm finetuning.1): task.recipe.epochs: 0"),
    changed(
        "grid",
        "recipe_grid.arms.1.grid",
        {"recipe.access_rate": [0.05, 1.0]},
        "(arm long.0): task.recipe.access_rate: unknown key 'access_rate'; allowed: ",
    ),
    changed("grid", "recipe_grid.splits", {"validation": "dev"}, "recipe_grid.splits.validation: unknown key"),
    changed("grid", "recipe_grid.splits", {"test": "hans"}, "(arm finetuning.0): recipe_grid.splits.test: 'hans' is"),
    changed("grid", "recipe_grid.failed", {"dev_accuracy_below": 0.5}, "recipe_grid.failed.dev_accuracy_below: unk"),
    changed("grid", "recipe_grid.min_trials", 0, "recipe_grid.min_trials: 0"),
    changed(
        "grid",
        "task.measure",
        [{"split": "train"}, {"split": "test"}],
        "(arm finetuning.0): recipe_grid.splits.dev: 'dev' is not measured; task.measure lists test, train",
    ),
    changed("grid", "queries", {"split": "test", "count": 1}, "queries: recipe_grid takes no queries"),
    changed("grid", "methods", [{"name": "random"}], "methods: recipe_grid takes no methods"),
    changed("grid", "recipe_grid.baseline", "vanilla", "recipe_grid.baseline: 'vanilla' is not an arm; finetuning, lo"),
    changed("grid", "recipe_grid.grid", {"recipe.epochs": []}, "recipe_grid.grid.recipe.epochs: at least one value, "),
    changed(
        "grid",
        "recipe_grid.grid",
        {"recipe.epochs": [2, 2]},
        "recipe_grid.grid.recipe.epochs: at least one value, each once: [2",
    ),
    changed(
        "grid",
        "recipe_grid.grid",
        {"recipe.learning_rate": [1, 1.0]},
        "recipe_grid.grid.recipe.learning_rate: at least one val",
    ),
    changed(
        "grid",
        "recipe_grid.grid",
        {"recipe": [{}], "recipe.epochs": [1]},
        "recipe_grid.grid.recipe: replaces the block that",
    ),
    changed(
        "grid",
        "recipe_grid.arms.1.grid",
        {"recipe": [{"name": "finetune"}]},
        "recipe_grid.arms.1.grid.recipe: replaces the block that",
    ),
    changed(
        "grid",
        "recipe_grid.ablate",
        "recipe.access_rate",
        "recipe_grid.ablate: 'recipe.access_rate' is in no arm's grid",
    ),
    changed("grid", "recipe_grid.ablate", "recipe.learning_rate", "recipe_grid.ablate: the baseline 'finetuning' has"),
    changed(
        "grid", "recipe_grid.arms.1.paper", {"8": 0.8}, "recipe_grid.arms.1.paper: '8' is not a level; the arm has"
    ),
    # observer confound_influence_difference
    changed("grid", "observe", {"name": OBSERVER}, "observe: {'name'"),
    changed("grid", "observe", [OBSERVER], "observe.0: 'confound"),
    changed("grid", "observe", [{"every": 3}], "observe.0.name: is missing"),
    changed("grid", "observe", [{"name": "cid"}], f"observe.0.name: unknown observer 'cid'; allowed: {OBSERVER}"),
    changed("grid", "observe", [{"name": OBSERVER}] * 2, f"observe.1: duplicate observer '{OBSERVER}'"),
    changed("planted", "observe", [{"name": OBSERVER}], "observe.0: needs a task whose examples have known confounds"),
    observing({"evry": 3}, ".evry: unknown key 'evry'; allowed: every, "),
    observing({"every": -1}, ".every: -1"),
    observing({"probes": 49}, ".probes: 49 is more than the 48 train examples", "(arm finetuning.0): "),
    observing({"probe_ids": [0, 999]}, ".probe_ids: id 999 is not in this split (train)", "(arm finetuning.0): "),
    observing({"probe_ids": [3, 3]}, ".probe_ids: [3, 3]: id 3 appears twice"),
    observing({"examples": 0}, ".examples: 0"),
    observing({"layers": "middle"}, ".layers: 'middle'"),
    observing({"layers": []}, ".layers: []"),
    changed(
        "grid",
        "task.data.grammar.inoculation",
        0,
        "(arm finetuning.0): observe.0: every label has one confound only",
    ),
    # recipes that look at confounds
    tuning({"parameters": "nonsense"}, ".parameters: 'nonsense'"),
    tuning({"parameters": []}, ".parameters: []"),
    tuning({"access_rate": 0}, ".access_rate: 0: Input should be greater than 0"),
    tuning({"access_rate": 5}, ".access_rate: 5: Input should be less than or equal to 1"),
    tuning({"interval": 0}, ".interval: 0"),
    tuning({"round_learning_rate": 0}, ".round_learning_rate: 0"),
    tuning({"group_size": 0}, ".group_size: 0"),
    tuning({"alternate": 50}, ".alternate: unknown key 'alternate'; allowed: access_rate, "),
    tuning({"name": "embedding_tuning", "parameters": "all"}, ".parameters: unknown key 'parameters'"),
    tuning({"name": "adversarial", "reversal": -1}, ".reversal: -1"),
    changed(
        "grid",
        "recipe_grid.arms.1",
        {"name": "tuned", "set": {"recipe": TUNING}, "grid": {"recipe.access_rate": [0, 1.0]}},
        "(arm tuned.0): task.recipe.access_rate: 0",
    ),
    changed(
        "planted", "task.recipe.name", "influence_tuning", "task.recipe: 'influence_tuning' needs a task with a conf"
    ),
    changed(
        "planted", "task.recipe.name", "embedding_tuning", "task.recipe: 'embedding_tuning' needs a task with a conf"
    ),
    changed("planted", "task.recipe.name", "adversarial", "task.recipe: 'adversarial' needs the confound of every"),
    # tasks msgs and textlen
    changed("grid", "task.data", {}, "task.data: {}: exactly one of published, source, grammar"),
    changed("grid", "task.data.published", "msgs", "task.data: {'grammar': "),
    changed(
        "grid", "task.data", {"published": "nowhere"}, "(arm finetuning.0): task.data.published: 'nowhere' does not"
    ),
    changed("grid", "task.data", {"source": "nowhere"}, "(arm finetuning.0): task.data.source: 'nowhere' does not"),
    changed("grid", "task.data.grammar", None, "task.data.grammar: None"),
    changed("grid", "task.data.grammar.n_train", 2, "task.data.grammar.n_train: 2"),
    changed("grid", "task.data.grammar.n_dev", "many", "task.data.grammar.n_dev: 'many'"),
    changed("grid", "task.data.grammar.inoculation", 0.6, "task.data.grammar.inoculation: 0.6"),
    changed(
        "grid",
        "task.data.grammar.n_tset",
        8,
        "task.data.grammar.n_tset: unknown key 'n_tset'; allowed: held_out_adjectives, inoculation, n_adjectives",
    ),
    changed("grid", "task", {**TEXTLEN, "data": {}}, "(arm finetuning.0): task.data: does not say where the text is"),
    changed(
        "grid",
        "task",
        {**TEXTLEN, "data": {"published": "nowhere"}},
        "(arm finetuning.0): task.data.published: 'nowhere' does not exist",
    ),
    changed(
        "grid",
        "task",
        {**TEXTLEN, "data": {"published": ".", "prefix": False}},
        "(arm finetuning.0): task.data.published: '.' has no file no_prefix_train.parquet; needed there: ",
    ),
    changed(
        "grid",
        "task",
        {**TEXTLEN, "data": {"published": ".", "conll_train": "eng.train"}},
        "(arm finetuning.0): task.data.conll_train: unknown key 'conll_train'; allowed: prefix, published",
    ),
    changed(
        "grid",
        "task",
        {**TEXTLEN, "data": {"conll_train": "eng.train", "conll_test": "eng.testa", "n_train": 7}},
        "(arm finetuning.0): task.data.n_train: 7",
    ),
    changed(
        "grid",
        "task",
        {**TEXTLEN, "data": {"conll_train": "corpus.jsonl", "conll_test": "corpus.jsonl"}},
        "(arm finetuning.0): task.data.conll_train: ",
    ),
]
