"""The score stage: what scores are called, which are missing, and that nothing else is computed."""

from __future__ import annotations

import numpy as np
import pytest

from influence.scoring import Scorer
from orchestrator.runtime.clock import SystemClock
from orchestrator.stages.retraining import Stopped
from orchestrator.stages.score_shards import GroupScores
from orchestrator.storage.blobs import LocalBlobs, StoreAwayError
from orchestrator.storage.scores import ScoreStore
from orchestrator.storage.tables import read_scores_table
from tests.orchestrator.tiny_campaign import CONFIG, pipeline_of, run_here, small_config

RANGES = [(0, 16), (16, 32), (32, 40)]


def ids_of(folder, **changes):
    """Label -> score id, nothing trained."""
    stage = pipeline_of(small_config(folder, **changes)).scores
    return {label: stage.score_id(method) for label, method in stage.experiment.scored.items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return ids_of(tmp_path_factory.mktemp("base"))


def shards(own_copy):
    """Path -> bytes of every shard."""
    return {path: path.read_bytes() for path in (own_copy.folder / "runs" / "scores").glob("*/shard-*.parquet")}


def test_a_score_id_says_method_and_options_not_the_label(tmp_path, base):
    twice = [{"name": "tracin_last"}, {"name": "tracin_last", "as": "twin"}, {"name": "random"}]
    found = ids_of(tmp_path, methods=twice)
    assert found == {"tracin_last": base["tracin_last"], "twin": base["tracin_last"]}
    assert base["with_bias"] != base["tracin_last"]


@pytest.mark.parametrize(
    "change",
    [
        {"queries": {"split": "test", "count": 2}},
        {"queries": {"split": "test", "ids": [2, 1, 0]}},
        {"scores__models": 2},
        {"scores__seed": 3},
        {"scores__checkpoints": [2]},
        {"scores__rows_per_shard": 8},
        {"task__recipe__epochs": 3},
        {"task__seed": 1},
    ],
    ids=lambda change: "-".join(change),
)
def test_what_moves_scores_moves_every_id(tmp_path, base, change):
    found = ids_of(tmp_path, **change)
    assert not set(found.values()) & set(base.values())


@pytest.mark.parametrize(
    "change",
    [
        {"deletion__k": [1]},
        {"repeats__count": 5},
        {"compute__workers": 5},
        {"measurement": "loss"},
        {"methods": CONFIG["methods"][::-1]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_does_not_leaves_them(tmp_path, base, change):
    assert ids_of(tmp_path, **change) == base


def test_ids_follow_the_labels_that_are_explained(tmp_path, base):
    """A measurement of the predicted label explains other labels: other scores."""
    pipeline = pipeline_of(small_config(tmp_path, measurement="predicted_probability"))
    outputs = np.eye(2, dtype=np.float32)[[1, 0, 1, 0, 1, 0]]  # the scoring model is wrong everywhere
    [group] = pipeline.groups
    stage = GroupScores(pipeline.experiment, pipeline.store, group, pipeline.experiment.queries({"test": outputs}))
    assert stage.score_id(pipeline.experiment.methods["tracin_last"]) != base["tracin_last"]


def test_everything_is_missing_before_and_nothing_after(finished, tmp_path):
    assert pipeline_of(small_config(tmp_path)).scores.missing() == {"tracin_last": RANGES, "with_bias": RANGES}
    assert finished.pipeline.scores.ranges == RANGES
    assert finished.pipeline.scores.missing() == {}


def test_only_the_lost_shard_of_the_one_method_is_computed_again(own_copy):
    before = shards(own_copy)
    stage = own_copy.pipeline.scores
    folder = stage.score_id(stage.experiment.methods["with_bias"])
    lost = next(p for p in before if p.parent.name == folder and p.name.startswith("shard-000000016-"))
    lost.unlink()
    missing = own_copy.pipeline.scores.missing()
    assert missing == {"with_bias": [(16, 32)]}
    job = own_copy.pipeline.scores.job(missing)
    assert list(job.methods) == ["with_bias"]
    assert job.ranges == [(16, 32)]
    times = {path: path.stat().st_mtime_ns for path in before if path != lost}
    assert run_here(own_copy.config, until="score").report.retrained == 0
    assert shards(own_copy) == before, "the same range gives the same bits"
    assert {path: path.stat().st_mtime_ns for path in times} == times, "a shard that was there was written again"


def test_a_damaged_shard_is_missing(own_copy):
    path, data = next(iter(shards(own_copy).items()))
    path.write_bytes(data[:-9])
    assert sum(len(ranges) for ranges in own_copy.pipeline.scores.missing().values()) == 1
    run_here(own_copy.config, until="score")
    assert shards(own_copy)[path] == data


def test_adding_a_method_computes_that_method_alone(own_copy):
    before = shards(own_copy)
    methods = [*CONFIG["methods"], {"name": "tfidf"}]
    config = small_config(own_copy.folder, methods=methods)
    pipeline = pipeline_of(config)
    assert pipeline.scores.missing() == {"tfidf": RANGES}
    assert list(pipeline.scores.job(pipeline.scores.missing()).methods) == ["tfidf"]
    run_here(config, until="score")
    after = shards(own_copy)
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + len(RANGES)


def test_the_tables_hold_the_assembled_matrix_by_id(finished):
    pipeline = finished.pipeline
    for label in ("tracin_last", "with_bias"):
        query_ids, train_ids, scores = read_scores_table(pipeline.run_dir.scores(label))
        assert query_ids.tolist() == pipeline.queries.ids.tolist()
        assert train_ids.tolist() == pipeline.experiment.train.ids.tolist()
        assert np.array_equal(scores, pipeline.matrices[label].scores)
    assert not pipeline.run_dir.scores("random").exists()


def test_checkpoints_come_model_by_model_with_their_share_of_the_sum(finished):
    points = finished.pipeline.scores.checkpoints()
    assert [point.step for point in points] == [4, 8]
    assert [point.weight for point in points] == [0.05, 0.05]
    assert all(point.state for point in points)


class Outage(LocalBlobs):
    """Takes no shard until somebody has waited for it so many seconds."""

    waited_s, away_s, on_wait = 0.0, 0.0, staticmethod(lambda: None)

    def put(self, key, data):
        if Outage.waited_s < Outage.away_s:
            raise OSError(5, "away")
        super().put(key, data)


@pytest.fixture
def away(monkeypatch):
    """away(seconds, on_wait): from now on no shard is taken; waiting takes no time."""

    def sleep(self, seconds):
        Outage.waited_s += seconds
        Outage.on_wait()

    def go(seconds, on_wait=lambda: None):
        for name, value in (("waited_s", 0.0), ("away_s", seconds), ("on_wait", staticmethod(on_wait))):
            monkeypatch.setattr(Outage, name, value)
        monkeypatch.setattr(SystemClock, "sleep", sleep)

    return go


def scoring_anew(own_copy):
    """A pipeline that has lost its scores, over a store that may be away."""
    for path in shards(own_copy):
        path.unlink()
    pipeline = pipeline_of(own_copy.config)
    pipeline.store.scores = ScoreStore(Outage(pipeline.store.blobs.root))
    return pipeline


def test_a_store_that_is_away_for_a_while_does_not_end_the_score_stage(own_copy, away):
    before, pipeline = shards(own_copy), scoring_anew(own_copy)
    away(180)
    pipeline.run("score")
    assert Outage.waited_s >= 180
    assert shards(own_copy) == before


def test_one_that_stays_away_ends_it_so_that_the_same_command_goes_on(own_copy, away):
    before, pipeline = shards(own_copy), scoring_anew(own_copy)
    away(float("inf"))
    with pytest.raises(StoreAwayError) as caught:
        pipeline.run("score")
    assert caught.value.is_resumable
    assert 240 < Outage.waited_s < 400
    away(0)
    pipeline_of(own_copy.config).run("score")
    assert shards(own_copy) == before


def test_a_stop_does_not_wait_for_the_store(own_copy, away):
    pipeline = scoring_anew(own_copy)
    away(float("inf"), lambda: pipeline.stop.request("SIGINT"))
    with pytest.raises(Stopped, match="SIGINT"):
        pipeline.run("score")
    assert Outage.waited_s < 1


def test_checkpoint_0_enters_the_sum_with_the_weights_before_the_first_update(tmp_path):
    config = small_config(tmp_path, scores__checkpoints=[0, 2])
    run_here(config, until="score")
    stage = pipeline_of(config).scores
    stage.arm.task.prepare()
    first, last = stage.checkpoints()
    assert (first.step, last.step) == (0, 8)
    assert (first.weight, last.weight) == (0.05, 0.05)
    fresh = stage.arm.task.network(stage.scoring[0].work.spec.seed).state_dict()
    assert all(np.array_equal(first.state[name], weight.numpy()) for name, weight in fresh.items())
    queries, train = stage.queries, stage.arm.train
    method = stage.experiment.methods["tracin_last"]
    term = Scorer(stage.arm.task, [first, last], queries, {"m": method}, {}).score_range(0, len(train))["m"]
    np.testing.assert_allclose(stage.matrix("tracin_last").scores, term, rtol=1e-5, atol=1e-8)
    alone = Scorer(stage.arm.task, [last], queries, {"m": method}, {}).score_range(0, len(train))["m"]
    assert np.abs(alone - term).max() > 1e-6, "the initial weights matter"
