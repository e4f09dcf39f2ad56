"""`refit explain`: a query, its prediction and top examples, or the words of a pair, from the store and without a retrain."""

from __future__ import annotations

import json
import re

import pytest

from orchestrator.cli import main
from orchestrator.terminal import explained
from tests.orchestrator.small_campaigns import small_loo
from tests.orchestrator.small_grid import small_grid
from tests.orchestrator.tiny_campaign import committed, pipeline_of, run_here, small_config

METHODS = [
    {"name": "tracin_we"},
    {"name": "tracin_last"},
    {"name": "tracin_we_topk", "k": 3, "as": "top"},
    {"name": "random"},
]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A campaign that has been scored and not yet retrained: (config, run directory)."""
    config = small_config(tmp_path_factory.mktemp("scored"), methods=METHODS)
    return config, run_here(config, until="score").run_dir


def ended(capsys, *arguments):
    code = main(["explain", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def one(pipeline):
    """A query and the first train example."""
    return int(pipeline.queries.ids[0]), int(pipeline.experiment.train.ids[0])


def test_a_query_shows_its_prediction_and_its_top_examples_in_order(scored, capsys):
    config, run_dir = scored
    pipeline = pipeline_of(config)
    query, _ = one(pipeline)
    before = committed(config)
    code, out, err = ended(capsys, run_dir, "--query", query, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    outputs = pipeline.models.rows[pipeline.scoring[0].work.spec_id].outcome.outputs["test"]
    split = pipeline.experiment.task.splits["test"]
    row = int(pipeline.queries.rows[0])
    assert found["query"]["predicted"] == split.classes[int(outputs[row].argmax())]
    assert found["query"]["label"] == split.classes[int(split.labels[row])]
    assert found["query"]["text"] == split.texts[row]
    assert list(found["methods"]) == ["tracin_we", "tracin_last", "top"]
    for label, groups in found["methods"].items():
        scores = pipeline.matrices[label].scores[0]
        assert [e["score"] for e in groups["proponents"]] == pytest.approx(sorted(scores)[::-1][:5])
        assert [e["score"] for e in groups["opponents"]] == pytest.approx(sorted(scores)[:5])
    assert committed(config) == before


def test_the_words_of_a_pair_sum_to_its_score(scored, capsys):
    config, run_dir = scored
    pipeline = pipeline_of(config)
    matrix = pipeline.matrices["tracin_we"]
    for query in matrix.query_ids:
        for train in matrix.train_ids[:4]:
            code, out, _ = ended(capsys, run_dir, "--query", query, "--train", train, "--json")
            assert code == 0
            found = json.loads(out)["pairs"]
            assert list(found) == ["tracin_we", "top"], "the methods that split their scores by words"
            for label, pair in found.items():
                score = float(pipeline.matrices[label].row(query)[list(matrix.train_ids).index(train)])
                assert pair["score"] == score
                assert sum(w["contribution"] for w in pair.get("words", [])) == pytest.approx(score, rel=1e-5, abs=1e-7)


def test_the_terminal_shows_the_same_as_text(scored, capsys):
    config, run_dir = scored
    query, train = one(pipeline_of(config))
    _, out, _ = ended(capsys, run_dir, "--query", query)
    assert f"query {query} · label " in out
    assert out.count("proponents") == out.count("opponents") == 3
    _, out, _ = ended(capsys, run_dir, "--query", query, "--train", train, "--method", "tracin_we")
    assert "tracin_we: score" in out
    assert "by word" in out
    assert "\x1b" not in out, "captured output is no terminal"


def test_colours_follow_the_sign_and_the_terminal(scored, monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert explained.wants_colour(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not explained.wants_colour(Terminal())
    text = "one two\x1b[31m three"
    spans = [(0, 3, 1.0), (4, 7, -1.0)]
    [line] = explained._marked(text, spans, True)
    assert re.findall(r"\x1b\[32m\x1b\[1mone\x1b\[0m", line)
    assert re.findall(r"\x1b\[31m\x1b\[4m\x1b\[1mtwo\x1b\[0m", line)
    assert "two\x1b[0m?[31m three" in line, "the text itself cannot send escape sequences"
    assert explained._marked(text, spans, False) == ["    one two?[31m three"]


def test_marked_words_keep_their_places_in_broken_lines(scored):
    words = [f"word{number:03d}" for number in range(60)]
    text = " \n".join(words)
    spans = [(match.start(), match.end(), 1.0) for match in re.finditer(r"word\d*7", text)]
    lines = explained._marked(text, spans, True)
    marked = re.findall(r"\x1b\[32m\x1b\[1m(\w+)\x1b\[0m", "\n".join(lines))
    assert marked == [word for word in words if word.endswith("7")]
    assert [w for line in explained._marked(text, spans, False) for w in line.split()] == words
    assert all(len(line) <= explained.WIDTH for line in explained._marked(text, spans, False))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--query", "99"], r"--query: '99' is no query of this run; near: "),
        (["--query", "{query}", "--train", "99999"], r"--train: '99999' is no id of the train split; near: "),
        (
            ["--query", "{query}", "--method", "tracin_wee"],
            r"--method: 'tracin_wee' is no method .* did you mean 'tracin_we'",
        ),
        (["--query", "{query}", "--method", "random"], r"--method: 'random' is a control and has no scores"),
        (
            ["--query", "{query}", "--train", "{train}", "--method", "tracin_last"],
            r"--method: 'tracin_last' does not split its scores by words; allowed: tracin_we, top",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_input_ends_in_one_line(scored, capsys, arguments, problem):
    config, run_dir = scored
    query, train = one(pipeline_of(config))
    filled = [argument.format(query=query, train=train) for argument in arguments]
    code, out, err = ended(capsys, run_dir, *filled)
    assert (code, out) == (2, "")
    assert re.search(problem, err)
    assert err.count("\n") == 1


def test_scores_that_are_not_computed_yet_are_said_to_be(tmp_path, capsys):
    config = small_config(tmp_path, methods=METHODS)
    run_dir = run_here(config, until="score").run_dir
    query, train = one(pipeline_of(config))
    for path in (tmp_path / "runs" / "checkpoints").rglob("*.safetensors"):
        path.unlink()
    code, out, _ = ended(capsys, run_dir, "--query", query, "--train", train)
    assert code == 0
    assert "note: the words are not shown, because the weights of the scoring model are not in the store" in out
    for path in (tmp_path / "runs" / "scores").rglob("*.parquet"):
        path.unlink()
    code, out, err = ended(capsys, run_dir, "--query", query)
    assert (code, out) == (3, "")
    assert "scores of tracin_we are not complete yet; refit run computes them" in err


def test_a_method_that_matches_different_words_shows_both(tmp_path, plugin, capsys):
    source = '''
from influence.methods.tracin_we import TracInWE


class Soft(TracInWE):
    """Pairs each word of the query with the next one of the vocabulary."""

    name = "soft"

    def word_pairs(self, queries, train, query_row, train_row, prepared):
        found = self.words(queries, train, query_row, train_row, prepared)
        return [(token, token + 1, value) for token, value in found]
'''
    module = plugin("soft_words", source)
    config = small_config(tmp_path, methods=[{"name": f"{module}:Soft", "as": "soft"}], plugins=[module])
    run_dir = run_here(config, until="score").run_dir
    query, train = one(pipeline_of(config))
    _, out, _ = ended(capsys, run_dir, "--query", query, "--train", train)
    assert re.search(r"\w+\]? ~ \w+", out)
    _, out, _ = ended(capsys, run_dir, "--query", query, "--train", train, "--json")
    words = json.loads(out)["pairs"]["soft"]["words"]
    assert all(word["query_word"] != word["train_word"] for word in words)


def test_campaigns_without_queries_or_without_words_say_so(tmp_path, capsys):
    grid = small_grid(tmp_path)
    run_dir = run_here(grid, until="plan").run_dir
    code, _, err = ended(capsys, run_dir, "--query", "1")
    assert code == 2
    assert "the campaign recipe_grid asks no queries" in err


def test_a_campaign_of_points_is_explained_by_their_features(tmp_path, capsys):
    config = small_loo(tmp_path)
    run_dir = run_here(config, until="score").run_dir
    query, train = one(pipeline_of(config))
    code, out, _ = ended(capsys, run_dir, "--query", query)
    assert code == 0
    assert "scored on" in out
    code, _, err = ended(capsys, run_dir, "--query", query, "--train", train)
    assert code == 2
    assert "no method of this run splits its scores by words" in err
