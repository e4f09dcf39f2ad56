"""Outputs of frozen layers that are computed once: the same results as without, for every depth, in every use."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from influence.checkpoint import Checkpoint, QueryBlock
from influence.gradients import GradientSource
from influence.methods.influence_function import InfluenceFunction
from influence.methods.influence_last import InfluenceLast
from influence.methods.tracin import TracIn
from influence.methods.tracin_last import TracInLast
from influence.methods.tracin_we import TracInWE
from influence.saliency import token_saliency
from influence.scoring import Scorer
from influence.solvers import ConjugateGradients
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.models.classifier_inputs import classifier_inputs
from tasks.models.encoder import Encoder
from tasks.models.frozen_trunk import find_trunk
from tasks.models.pretrained import quiet_transformers
from tasks.recipe import Training
from tasks.recipes.finetune import Finetune
from tasks.task import MASKED
from tests.fakes import tiny_bert
from tests.pair_tasks import ServedPairTask, pair_task

LAYERS = 3
LOWER = ("bert.embeddings", *(f"bert.encoder.layer.{number}" for number in range(LAYERS - 1)))
FREEZE = {
    "head": ("bert",),
    "pooler": ("bert.embeddings", "bert.encoder"),
    "top layer": LOWER,
    "embeddings": ("bert.embeddings",),
}
NUMERICS = Numerics(device_model="test", torch=str(torch.__version__))
EXACT = replace(NUMERICS, dtype="float64")
RECIPE = Finetune(epochs=2, batch_size=5, optimizer="sgd", learning_rate=0.1)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("pretrained") / "bert", layers=LAYERS)


def model_of(bert, depth, **options):
    return Encoder(pretrained=str(bert), max_length=32, freeze=FREEZE[depth], **{"dropout": 0.0, **options})


def computed(bert, depth, **options):
    return pair_task(model_of(bert, depth, **options), RECIPE)


def served(bert, depth, frozen_trunk="cached", numerics=NUMERICS, cache_dir=None, **options):
    """Return the same task, which serves the outputs of the trunk."""
    task = computed(bert, depth, **options)
    task.cache_dir = cache_dir
    task.prepare_for(replace(numerics, frozen_trunk=frozen_trunk))
    return task


def train(task, numerics=NUMERICS, edit=None):
    return task.recipe.train(task, Training(edit=edit or Edit(), seed=7, numerics=numerics)).network


def weights(network):
    return torch.cat([value.flatten() for value in network.state_dict().values()])


def bits(task, edit=None):
    network = train(task, edit=edit)
    outputs = task.outputs(network, "test", task.measured["test"])
    return outputs.tobytes() + weights(network).numpy().tobytes()


class Evaluations:
    """Counts how many rows pass through the embeddings."""

    def __init__(self, monkeypatch):
        from transformers.models.bert.modeling_bert import BertEmbeddings

        self.n_rows, forward = 0, BertEmbeddings.forward

        def counting(module, input_ids, *args, **kwargs):
            self.n_rows += len(input_ids)
            return forward(module, input_ids, *args, **kwargs)

        monkeypatch.setattr(BertEmbeddings, "forward", lambda m, input_ids=None, **kw: counting(m, input_ids, **kw))


@pytest.mark.parametrize("depth", FREEZE)
def test_a_training_gives_what_it_gives_without_the_cache(bert, depth):
    """In float64 the difference can only be rounding, which training makes no larger than 1e-12."""
    plain, cached = computed(bert, depth), served(bert, depth, numerics=EXACT)
    one, other = train(plain, EXACT), train(cached, EXACT)
    assert list(one.state_dict()) == list(other.state_dict())
    torch.testing.assert_close(weights(other), weights(one), rtol=0, atol=1e-12)
    rows = plain.measured["test"]
    difference = plain.outputs(one, "test", rows) - cached.outputs(other, "test", rows)
    assert np.abs(difference).max() < 1e-6  # outputs are rounded to float32
    assert not torch.equal(weights(one), weights(plain.network(7).double())), "something was trained"


@pytest.mark.parametrize("depth", FREEZE)
def test_logits_and_gradients_of_float32_differ_by_rounding_only(bert, depth):
    plain, cached = computed(bert, depth), served(bert, depth)
    rows, blank = np.arange(9), np.arange(9) == 4
    found = []
    for task in (plain, cached):
        network = task.network(1).train()
        losses = task.losses(network, task.batch("train", rows, blank=blank))
        losses.sum().backward()
        found.append([losses, *(p.grad for p in network.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=2e-6)


def test_only_the_first_token_is_stored_if_the_head_reads_no_other(bert):
    shapes = {depth: served(bert, depth).batch("train", np.arange(3))["trunk"].shape for depth in FREEZE}
    assert {shapes["head"], shapes["pooler"]} == {(3, 1, 16)}
    assert {shapes["top layer"], shapes["embeddings"]} == {(3, 16, 16)}


def test_half_precision_is_another_value_and_near_the_first(bert):
    full, half = served(bert, "top layer"), served(bert, "top layer", "cached_half")
    assert half.batch("train", np.arange(3))["trunk"].dtype == torch.float16
    one, other = (task.outputs(task.network(1), "test", task.measured["test"]) for task in (full, half))
    assert 0 < np.abs(one - other).max() < 5e-3


def test_the_trunk_is_evaluated_once_however_many_retrains_and_queries(bert, tmp_path, monkeypatch):
    evaluations = Evaluations(monkeypatch)
    task = served(bert, "top layer", cache_dir=tmp_path)
    n_all = len(task.splits["train"]) + len(task.measured["test"]) + 1  # 1: the empty text
    assert evaluations.n_rows == n_all
    networks = [train(task, edit=Edit.removal(task.splits["train"].ids[:n])) for n in range(3)]
    for network in networks:
        task.outputs(network, "test", task.measured["test"])
        scores(task, network, {"f": InfluenceFunction(solver=ConjugateGradients(damping=1.0)), "t": TracInLast()})
    assert evaluations.n_rows == n_all
    served(bert, "top layer", cache_dir=tmp_path)
    assert evaluations.n_rows == n_all, "another worker reads what the first has written"
    served(bert, "pooler", cache_dir=tmp_path)
    assert evaluations.n_rows == 2 * n_all, "another trunk has other outputs"


def scores(task, network, methods):
    split, rows = task.splits["test"], task.measured["test"][:3]
    state = {name: value.detach().numpy() for name, value in network.named_parameters()}
    queries = QueryBlock("test", split.ids[rows], rows, split.labels[rows])
    prepared = {label: method.prepare(task, Path(), queries) for label, method in methods.items()}
    scorer = Scorer(task, [Checkpoint("spec", 1, 1.0, 1.0, state)], queries, methods, prepared)
    return scorer.score_range(0, len(task.splits["train"]))


def test_scores_are_those_without_the_cache(bert):
    """tracin_we and tracin on frozen layers differentiate what is cached, so they compute the whole network: equal bits."""
    plain, cached = computed(bert, "top layer"), served(bert, "top layer")
    network = train(plain)
    methods = {
        "last": TracInLast(),
        "influence_last": InfluenceLast(),
        "influence": InfluenceFunction(
            solver=ConjugateGradients(damping=1.0), parameters=("*layer.2.output*", "class*")
        ),
        "tracin": TracIn(),
        "we": TracInWE(),
        "frozen": TracIn(layers=("bert.encoder.layer.0*",)),
    }
    expected, found = (scores(task, network, methods) for task in (plain, cached))
    for label in methods:
        size = np.abs(expected[label]).max()
        assert size > 0
        np.testing.assert_allclose(found[label], expected[label], rtol=0, atol=2e-5 * size, err_msg=label)
    for label in ("we", "frozen"):
        assert np.array_equal(found[label], expected[label]), label
    alone = scores(cached, network, {"last": methods["last"]})
    assert np.array_equal(alone["last"], found["last"]), "the bits do not depend on which other methods there are"


@pytest.mark.parametrize("depth", FREEZE)
def test_masked_examples_and_saliency_are_those_without_the_cache(bert, depth):
    plain, cached = computed(bert, depth), served(bert, depth)
    network, rows = train(plain), np.array([2, 0, 2])
    one, other = (task.with_masked("test", rows, np.array([1, 2, 3])) for task in (plain, cached))
    found, expected = (task.outputs(network, MASKED, np.arange(3)) for task in (other, one))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert np.abs(expected - plain.outputs(network, "test", rows)).max() > 1e-6, "masking must matter"
    assert np.array_equal(cached.outputs(network, "test", rows), other.outputs(network, "test", rows))
    point = Checkpoint("s", 1, 1.0, 1.0, {n: value.detach().numpy() for n, value in network.named_parameters()})
    one, other = (token_saliency(task, [point], "test", rows, np.zeros(3, int)) for task in (plain, cached))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("depth", FREEZE)
def test_length_groups_and_the_cache_go_together(bert, depth):
    """In float64, with both, with one and with none: the same weights up to rounding."""
    trained = []
    for cost in (0, 4):
        numerics = replace(EXACT, length_group_cost=cost)
        trained += [
            weights(train(computed(bert, depth), numerics)),
            weights(train(served(bert, depth, numerics=numerics), numerics)),
        ]
    for other in trained[1:]:
        torch.testing.assert_close(other, trained[0], rtol=0, atol=1e-12)


def test_gradients_at_the_embedding_are_those_of_the_whole_network(bert):
    plain, cached = computed(bert, "pooler"), served(bert, "pooler")
    network = train(plain)
    point = Checkpoint(
        "spec", 1, 1.0, 1.0, {name: value.detach().numpy() for name, value in network.named_parameters()}
    )
    rows, labels = np.arange(4), plain.splits["train"].labels[:4]
    one, other = (
        GradientSource(task, task.network(0), [point], frozenset({"embedding"})).shard("train", rows, labels)
        for task in (plain, cached)
    )
    assert torch.equal(one.checkpoints[0].embedding.vectors, other.checkpoints[0].embedding.vectors)
    assert one.checkpoints[0].embedding.vectors.abs().max() > 0


@pytest.fixture(scope="module")
def task(bert):
    return pair_task(model_of(bert, "top layer"), RECIPE, kind=ServedPairTask)


@pytest.mark.parametrize("mode", ["mask", "drop"])
def test_content_of_removed_rows_changes_no_bit(task, mode):
    removed = task.splits["train"].ids[:4]
    noisy = task.with_noise_in(removed)
    edit = Edit.removal(removed, mode)
    assert bits(noisy, edit) == bits(task, edit)
    assert bits(noisy) != bits(task)


@pytest.mark.parametrize("by", ["pad", "unknown"])
def test_a_replaced_word_changes_no_bit_and_the_other_words_do(task, by):
    some = task.splits["train"].ids[[2, 5]]
    edit = Edit.replacement({int(i): [1] for i in some}, by)
    noisy = task.with_tokens_at(edit.replaced, lambda tokens: (tokens + 7) % 30 + 4)
    assert bits(noisy, edit) == bits(task, edit)
    assert bits(noisy) != bits(task)
    assert bits(task, edit) != bits(task)


def test_replaced_words_give_what_they_give_without_the_cache(bert):
    plain, cached = computed(bert, "top layer"), served(bert, "top layer", numerics=EXACT)
    edit = Edit.replacement({int(i): [1, 2] for i in plain.splits["train"].ids[[2, 5]]}, "pad")
    one, other = (weights(train(task, EXACT, edit)) for task in (plain, cached))
    torch.testing.assert_close(other, one, rtol=0, atol=1e-12)


def test_only_replaced_rows_are_computed_afresh(task, monkeypatch):
    evaluations = Evaluations(monkeypatch)
    task.with_replaced(Edit.replacement({int(i): [1] for i in task.splits["train"].ids[[2, 5]]}, "unknown"))
    assert evaluations.n_rows == 2


def test_a_fresh_network_has_the_bits_that_it_has_without_the_cache(bert):
    plain, cached = computed(bert, "pooler"), served(bert, "pooler")
    torch.manual_seed(3)
    first = cached.network(1)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1.0)
    for seed in (1, 2, 1):
        assert torch.equal(weights(cached.network(seed)), weights(plain.network(seed)))
    one, other = cached.network(2), plain.network(2)
    assert [p.requires_grad for p in one.parameters()] == [p.requires_grad for p in other.parameters()]
    torch.manual_seed(3)
    after = torch.rand(2)
    torch.manual_seed(3)
    cached.network(5)
    assert torch.equal(torch.rand(2), after), "making a network leaves the global generator alone"


def test_a_task_that_serves_outputs_can_be_sent_to_another_process(bert):
    cached = served(bert, "top layer")
    there = pickle.loads(pickle.dumps(cached))
    assert "trunk" not in there.batch("train", np.arange(2)), "every worker opens its own"
    there.prepare_for(replace(NUMERICS, frozen_trunk="cached"))
    assert torch.equal(there.batch("train", np.arange(2))["trunk"], cached.batch("train", np.arange(2))["trunk"])


def test_a_copy_with_the_whole_network_shares_the_rest(bert):
    cached = served(bert, "top layer")
    whole = cached.with_whole_network()
    assert "trunk" not in whole.batch("train", np.arange(2))
    assert "trunk" in cached.batch("train", np.arange(2))
    assert whole.splits is cached.splits
    plain = computed(bert, "top layer")
    assert plain.with_whole_network() is plain


SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
KINDS = {
    "bert": SIZES,
    "roberta": SIZES,
    "xlm-roberta": SIZES,
    "camembert": SIZES,
    "electra": {**SIZES, "embedding_size": 8},
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 16},
}


@pytest.mark.parametrize("model_type", KINDS)
def test_served_outputs_give_the_logits_of_every_known_architecture(model_type):
    config = AutoConfig.for_model(
        model_type,
        vocab_size=40,
        max_position_embeddings=32,
        pad_token_id=1,
        initializer_range=0.5,
        **KINDS[model_type],
    )
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    ids = torch.tensor([[2, 10, 11, 12, 13, 3, 1, 1], [2, 10, 3, 1, 1, 1, 1, 1]])
    inputs = classifier_inputs(network, {"input_ids": ids, "attention_mask": ids != 1})
    names = [name for name, _ in network.named_parameters()]
    encoder = network.base_model_prefix
    below = [name for name in names if ".embeddings" in name]
    lower = [name for name in names if ".layer.0." in name]
    every = [name for name in names if name.startswith(f"{encoder}.")]
    found = [find_trunk(model_type, names, frozen) for frozen in (below, below + lower, every)]
    assert [(trunk.n_layers, trunk.whole) for trunk in found] == [(0, False), (1, False), (3, True)]
    with torch.no_grad():
        expected = network(**inputs).logits
        for trunk in found:
            outputs = trunk.outputs(network, inputs)
            cut = {name: values[:, : outputs.shape[1]] for name, values in inputs.items()}
            with trunk.serving(network, outputs):
                torch.testing.assert_close(network(**cut).logits, expected, rtol=1e-6, atol=1e-6)
            with trunk.serving(network, outputs + 1):
                assert (network(**cut).logits - expected).abs().max() > 1e-3, "the outputs are used"
        assert torch.equal(network(**inputs).logits, expected), "and the network is as it was"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"freeze": ()}, "task.model.freeze is empty"),
        ({"freeze": ("bert.encoder",)}, r"bert.embeddings.\S+ is trained"),
        ({"dropout": None}, "dropout 0.1; set task.model.dropout to 0.0"),
        ({"dropout": 0.2}, "dropout 0.2; set task.model.dropout to 0.0"),
    ],
)
def test_a_model_without_a_frozen_trunk_is_refused(bert, options, complaint, tmp_path):
    defaults = {"freeze": FREEZE["top layer"], "dropout": 0.0}
    model = Encoder(pretrained=str(bert), max_length=32, **{**defaults, **options})
    with pytest.raises(ValueError, match=complaint):
        model.frozen_trunk(tmp_path)
    task = pair_task(model, RECIPE)
    with pytest.raises(ValueError, match=complaint):
        task.prepare_for(replace(NUMERICS, frozen_trunk="cached"))


def test_an_architecture_with_unknown_modules_is_refused_by_name():
    with pytest.raises(ValueError, match="it is not known which modules of 'albert' come first; known: bert, "):
        find_trunk("albert", ["albert.embeddings.weight"], ["albert.embeddings.weight"])
