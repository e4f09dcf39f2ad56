"""Edits that replace words: their identity, and how the tokens of a text task change."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.base import Split
from tasks.data.edits import Edit
from tasks.models.encoder import Encoder
from tasks.models.text_cnn import TextCNN
from tasks.recipes.finetune import Finetune
from tasks.text_task import TextTask
from tests.fakes import tiny_bert

TEXTS = ("w5 w6 w5 w7", "w8 w9", "w5", "w10 w11 w12 w6")


def test_the_ids_of_edits_that_replace_nothing_are_those_of_earlier_versions():
    assert Edit().edit_id == "c6f1ce4e1b228b94a83b0a33f47997cf"
    assert Edit.removal([3, 1]).edit_id == "d693eb987a7b933ffae0d0934e5d84bf"
    assert Edit.removal([3, 1]).identity().keys() == {"edit_id", "mode", "version"}


def test_the_identity_of_a_replacement_has_its_examples_positions_and_token():
    edit = Edit.replacement({7: [4, 2, 4], 3: [1], 9: []}, "pad")
    assert edit.replaced == ((3, (1,)), (7, (2, 4)))
    assert (edit.ids, edit.weights, edit.mode, edit.is_empty, edit.n_examples) == ((), (), "mask", False, 2)
    assert edit == Edit.replacement({3: [1], 7: (2, 4)}, "pad")
    others = [
        *(
            Edit.replacement(at, "pad")
            for at in ({7: [2, 4]}, {3: [1], 7: [2]}, {3: [1, 2], 7: [4]}, {3: [2], 7: [2, 4]})
        ),
        *(Edit.replacement({3: [1], 7: [2, 4]}, "unknown"), Edit(), Edit.removal([3, 7])),
    ]
    assert edit.edit_id not in {other.edit_id for other in others}
    assert len({other.edit_id for other in others}) == len(others)
    assert Edit.replacement({9: []}, "pad") == Edit(), "an edit that replaces nothing is the reference"
    assert (edit.weights_of(np.array([3, 7, 9])) == 1).all()


def split(texts):
    return Split(np.array([30, 10, 20, 40]), np.array([0, 1, 0, 1]), ("a", "b"), texts)


def task_of(model, folder, texts=TEXTS):
    task = TextTask({"train": split(texts)}, {"train": np.arange(4)}, model, Finetune(epochs=1), folder)
    task.prepare()
    return task


def arrays(task, **options):
    return {name: tensor.numpy() for name, tensor in task.batch("train", np.arange(4), **options).items()}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return Encoder(pretrained=str(tiny_bert(tmp_path_factory.mktemp("bert"))), max_length=16, num_layers=1)


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_only_the_replaced_positions_change(kind, bert, tmp_path):
    task = task_of(TextCNN(embedding_dim=4, filters=4, max_length=16) if kind == "words" else bert, tmp_path)
    edit = Edit.replacement({30: [1, 3], 40: [4]}, "unknown")
    before, after = arrays(task), arrays(task.with_replaced(edit))
    at = ([0, 0, 3], [1, 3, 4])
    assert (after["input_ids"][at] == task.tokeniser.replacements["unknown"]).all()
    after["input_ids"][at] = before["input_ids"][at]
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert all(np.array_equal(before[name], array) for name, array in arrays(task).items()), (
        "the task itself is unchanged"
    )


def test_padding_is_hidden_from_attention(bert, tmp_path):
    task = task_of(bert, tmp_path)
    before, after = arrays(task), arrays(task.with_replaced(Edit.replacement({30: [1, 3]}, "pad")))
    assert (after["input_ids"][0, [1, 3]] == task.tokeniser.pad_id).all()
    changed = np.argwhere(before["attention_mask"] != after["attention_mask"])
    assert changed.tolist() == [[0, 1], [0, 3]]


def test_another_word_in_the_raw_text_gives_the_same_tokens_once_it_is_replaced(bert, tmp_path):
    edit = Edit.replacement({30: [1, 3], 20: [1]}, "pad")
    ours, theirs = (task_of(bert, tmp_path, texts) for texts in (TEXTS, ("w30 w6 w30 w7", TEXTS[1], "w31", TEXTS[3])))
    assert not np.array_equal(arrays(ours)["input_ids"], arrays(theirs)["input_ids"])
    ours, theirs = (arrays(task.with_replaced(edit)) for task in (ours, theirs))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_removed_example_may_hold_any_word(bert, tmp_path):
    """The words of a blank row change nothing, and its replaced positions do not hide those of the neutral text."""
    task, edit = task_of(bert, tmp_path), Edit.replacement({30: [1, 2, 3, 4]}, "pad")
    blank = np.array([True, False, False, False])
    plain, replaced = arrays(task, blank=blank), arrays(task.with_replaced(edit), blank=blank)
    assert all(np.array_equal(plain[name], replaced[name]) for name in plain)


def test_what_cannot_be_replaced_is_refused(bert, tmp_path):
    task = task_of(TextCNN(embedding_dim=4, filters=4, max_length=16), tmp_path)
    with pytest.raises(ValueError, match=r"no token 'mask'; allowed: pad, unknown"):
        task.with_replaced(Edit.replacement({30: [1]}, "mask"))
    with pytest.raises(ValueError, match="behind the last token"):
        task.with_replaced(Edit.replacement({20: [3]}, "pad"))
    with pytest.raises(KeyError, match="99"):
        task.with_replaced(Edit.replacement({99: [1]}, "pad"))
    assert task.with_replaced(Edit.removal([30])) is task
