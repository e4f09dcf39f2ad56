"""Invented report data for tests: realistic shapes, user text that must be escaped."""

from dataclasses import replace

import numpy as np
import pandas as pd

from orchestrator.campaigns.deletion.page import EXPLAINED, deletion_sections
from orchestrator.report.data import QueryPage, ReportData, ShownExample

CLASSES = ("business", "entertainment", "politics", "sport", "tech")
WORDS = (
    *["the", "company", "said", "on", "monday", "profits", "rose", "after", "strong", "sales", "of", "games", "and"],
    *["phones", "while", "government", "minister", "told", "a", "new", "film", "won", "award", "as", "England", "beat"],
)
HOSTILE = "<script>alert(1)</script> {{7*7}} {% raw %} & \"quoted\" 'single' <img src=x onerror=alert(2)>"
METHODS = ("tracin_we", "tracin_we_topk", "tracin_last", "tfidf", "random")


def text_of(rng, n_words):
    return " ".join(rng.choice(WORDS, n_words))


def spans_of(rng, text, share=0.3):
    spans, position = [], 0
    for word in text.split(" "):
        if rng.random() < share:
            spans.append((position, position + len(word), float(rng.normal() * 0.02)))
        position += len(word) + 1
    return spans


def with_intervals(value, rng, n_queries=10, n_repeats=5, wide=0.02):
    se, se_fixed = wide * (0.5 + rng.random()), wide * 0.4 * (0.5 + rng.random())
    return {
        "se": se,
        "ci_low": value - 2.2 * se,
        "ci_high": value + 2.2 * se,
        "se_fixed": se_fixed,
        "ci_fixed_low": value - 2.4 * se_fixed,
        "ci_fixed_high": value + 2.4 * se_fixed,
        "n_queries": n_queries,
        "n_repeats": n_repeats,
        "n_excluded": 1,
    }


def of_accuracy(change, wide=0.004):
    """Return the columns of `accuracy_change.accuracy_columns`."""
    ends = {
        f"accuracy_{ci}_{end}": change + side * wide
        for ci in ("ci", "ci_fixed")
        for end, side in (("low", -1), ("high", 1))
    }
    return {"accuracy": 0.9 + change, "accuracy_delta": change, **ends}


def over_queries(value, wide=0.02):
    """Return the columns of `over_queries.query_columns`, of a curve or of a difference."""
    share = {"share_moved": 0.8, "share_moved_ci_low": 0.44, "share_moved_ci_high": 0.97}
    return {"p_flip": 0.027, **share, "median": value, "median_ci_low": value - wide, "median_ci_high": value + wide}


def effect(method, group, k):
    sign = {"proponents": -1, "opponents": 1}.get(group, 0)
    strength = 0.0 if method == "random" else 1.3 ** -(sum(map(ord, method)) % 5)
    return sign * strength * 0.004 * k**0.7


def example(rng, train_id, query_text, *, decomposes, n_words=60, sign=1, text=None):
    text = text if text is not None else text_of(rng, n_words)
    words = [
        (str(word), str(word), float(value))
        for word, value in zip(rng.choice(WORDS, 8), sorted(rng.normal(size=8), key=abs)[::-1], strict=True)
    ]
    return ShownExample(
        train_id=train_id,
        score=sign * abs(float(rng.normal())),
        label=str(rng.choice(CLASSES)),
        text=text,
        train_spans=spans_of(rng, text) if decomposes else (),
        query_spans=spans_of(rng, query_text) if decomposes else (),
        words=words if decomposes else (),
    )


def query_page(rng, query_id, methods, *, n_examples=3, n_words=60, hostile=False):
    text = HOSTILE if hostile else text_of(rng, n_words)
    label = str(rng.choice(CLASSES))
    examples = {}
    for method in methods:
        if method == "random":
            continue
        decomposes = method.startswith("tracin_we")
        examples[method] = {
            group: [
                example(
                    rng,
                    100 * query_id + i,
                    text,
                    decomposes=decomposes,
                    n_words=n_words,
                    sign=sign,
                    text=HOSTILE if hostile and i == 0 else None,
                )
                for i in range(n_examples)
            ]
            for group, sign in (("proponents", 1), ("opponents", -1))
        }
    return QueryPage(
        query_id, text, label, label if query_id % 3 else str(rng.choice(CLASSES)), float(rng.random()), examples
    )


def deletion_data(
    methods=METHODS, groups=("proponents", "opponents"), ks=(10, 20, 50, 100), n_queries=1, seed=0, **pages
):
    """Return the tables of a deletion campaign, and its query pages."""
    rng = np.random.default_rng(seed)
    pairs = [(method, group) for method in methods for group in groups]
    ids = [7 + 30 * i for i in range(n_queries)]
    curves = [
        {
            "method": m,
            "group": g,
            "k": k,
            "delta": (d := effect(m, g, k) + 0.004 * rng.normal()),
            **with_intervals(d, rng),
            **of_accuracy(-0.0001 * k),
        }
        for m, g in pairs
        for k in ks
    ]
    query_curves = [
        {
            "query_id": q,
            "method": m,
            "group": g,
            "k": k,
            "delta": (d := effect(m, g, k) + 0.02 * rng.normal()),
            **with_intervals(d, rng, n_queries=1),
            **of_accuracy(-0.0001 * k),
        }
        for q in ids
        for m, g in pairs
        for k in ks
    ]
    summary = [
        {
            "method": m,
            "group": g,
            "auc_del": (a := float(np.mean([effect(m, g, k) for k in ks]))),
            **with_intervals(a, rng),
            **over_queries(a),
        }
        for m, g in pairs
    ]
    contrasts = [
        {
            "method": m,
            "baseline": "random",
            "group": g,
            "diff": (d := float(np.mean([effect(m, g, k) for k in ks]))),
            "se": 0.01,
            "ci_low": d - 0.02,
            "ci_high": d + 0.02,
            "p": 0.0004,
            "p_holm": 0.032,
            "n_queries": 10,
            "n_repeats": 5,
            "family": "control",
            **over_queries(d),
        }
        for m, g in pairs
        if m != "random"
    ]
    pairing = [
        {"method": m, "group": g, "variance_paired": 1e-4, "variance_unpaired": 4.1e-4, "ratio": 4.1} for m, g in pairs
    ]
    tables = {
        "curves": pd.DataFrame(curves),
        "query_curves": pd.DataFrame(query_curves),
        "summary": pd.DataFrame(summary),
        "contrasts": pd.DataFrame(contrasts),
        "pairing": pd.DataFrame(pairing),
    }
    return tables, [query_page(rng, q, methods, **pages) for q in ids]


def without_figures(sections):
    """Leave out the figures, because drawing takes most of the time of a page."""
    return [replace(section, figures={}) for section in sections]


def report_data(tables=None, queries=None, drawn=False, **options):
    """Return a deletion report; `tables` and `queries` replace those made from `options`."""
    made, pages = deletion_data(**options)
    sections = deletion_sections({**made, **(tables or {})}, pages if queries is None else queries)
    return ReportData(sections=sections if drawn else without_figures(sections), **frame(**options))


def frame(methods=METHODS, groups=("proponents", "opponents"), ks=(10, 20, 50, 100), **_):
    """Return the common parts of a report."""
    return {
        "name": "bbc-quickstart",
        "campaign": "deletion",
        "asked": [
            ("Task", "text_classification, BBC News, 5 classes"),
            ("Model", "text_cnn"),
            ("Queries", "10 of the test split, 2 per class"),
            ("Measurement", "gold_probability: probability of the gold label"),
            ("Methods", ", ".join(methods)),
            ("k", ", ".join(map(str, ks))),
            ("Groups", ", ".join(groups)),
            ("Repeats", "5 seeds, base seed 2021"),
        ],
        "explained": EXPLAINED,
        "data_card": [
            {
                "split": "train",
                "n": 1780,
                "n_measured": 0,
                "classes": dict(zip(CLASSES, (408, 309, 333, 409, 321), strict=True)),
                "digest": "5d41402abc4b2a76b9719d911017c592",
            },
            {
                "split": "test",
                "n": 445,
                "n_measured": 445,
                "classes": dict(zip(CLASSES, (102, 77, 84, 102, 80), strict=True)),
                "digest": "7d793037a0760186574b0282f2f435e7",
            },
        ],
        "model_card": [
            ("Model", "text_cnn, version 1"),
            ("Embedding", "128 dimensions"),
            ("Recipe", "finetune: 10 epochs, adam, 1e-3"),
            ("Parameters", "3 412 005"),
        ],
        "accuracies": [
            {"role": "scoring model", "split": "test", "mean": 0.9573, "sd": float("nan"), "n": 1},
            {"role": "reference", "split": "test", "mean": 0.9551, "sd": 0.0042, "n": 5},
        ],
        "verdicts": [
            "tracin_we beats random on proponents: AUC-DEL lower by 0.051 (95% CI 0.031 to 0.071, Holm p 0.032).",
            "No difference was found between tfidf and random on opponents (Holm p 0.41).",
        ],
        "notes": [
            "All scores come from one scoring model: the intervals are conditional on it.",
            "3 cells were excluded; see holes.",
        ],
        "failures": pd.DataFrame(
            [
                {
                    "spec_id": "ab" * 16,
                    "status": "quarantined",
                    "attempts": 3,
                    "error": "RuntimeError: <b>out of memory</b>",
                },
                {"spec_id": "cd" * 16, "status": "diverged", "attempts": 1, "error": None},
            ]
        ),
        "holes": pd.DataFrame([{"method": "tfidf", "group": "proponents", "query_id": 7, "repeat": 3}]),
        "cost": [
            ("Retrains asked", "2 000"),
            ("Distinct", "1 432"),
            ("Saved by deduplication", "28.4 %"),
            ("Training time", "7 min 12 s"),
            ("Workers", "2"),
        ],
        "reproduce": [
            "refit run configs/quickstart.yaml --yes",
            "refit verify runs/bbc-quickstart-0123456789abcdef --rerun 3",
        ],
        "provenance": {
            "git_commit": "0123abcd",
            "versions": {"torch": "2.13.0", "ray": "2.60.0"},
            "seeds": [2021, 2022],
            "numerics": {"device": "cpu", "threads": 1},
            "store": None,
        },
    }
