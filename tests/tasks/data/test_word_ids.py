"""Which tokens stand for a word, in tokenisers by words, by word pieces and by byte pairs."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tasks.data.tokens import PretrainedEncoding, WordEncoding, word_ids
from tests.fakes import tiny_bert


def byte_pairs(directory):
    """Byte-level BPE that knows `the` at the start of a text and after a space, and `cat` only after a space."""
    pieces = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        *"abcdefghijklmnopqrstuvwxyz",
        "Ġ",
        "th",
        "the",
        "Ġthe",
        "at",
        "cat",
        "Ġcat",
    ]
    pieces.remove("cat")
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "t"), ("c", "at"), ("Ġ", "cat")]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "cat"])}
    fast = Tokenizer(models.BPE(vocabulary, merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    fast.save(str(directory / "tokenizer.json"))
    return PretrainedEncoding(directory, 16, "d").fit([]), vocabulary


def test_a_word_of_the_train_set_is_one_token_in_the_form_of_the_vocabulary():
    tokeniser = WordEncoding(max_length=8).fit(["The cat sat, the dog"])
    assert word_ids(tokeniser, "the") == word_ids(tokeniser, "The") == {tokeniser.words.index("the")}
    assert word_ids(tokeniser, ",") == {tokeniser.words.index(",")}


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("zebra", "'zebra' is not in the vocabulary of the tokenizer"),
        ("the cat", "'the cat' is not one token; the tokenizer splits it into 'the', 'cat'"),
        ("", "'' is no word"),
        (" ", "' ' is no word"),
    ],
)
def test_what_is_not_one_known_word_is_refused_in_one_line(word, says):
    with pytest.raises(ValueError, match=says) as error:
        word_ids(WordEncoding(max_length=8).fit(["The cat sat"]), word)
    assert "\n" not in str(error.value)


def test_both_tokens_of_a_word_stand_for_it_in_byte_pairs(tmp_path):
    tokeniser, vocabulary = byte_pairs(tmp_path)
    assert word_ids(tokeniser, "the") == {vocabulary["the"], vocabulary["Ġthe"]}
    with pytest.raises(ValueError, match="'dog' is not one token; the tokenizer splits it into 'Ġ', 'd', 'o', 'g'"):
        word_ids(tokeniser, "dog")


def test_word_pieces_know_their_unknown_token_and_special_tokens_are_no_words(tmp_path):
    tiny_bert(tmp_path)
    tokeniser = PretrainedEncoding(tmp_path, 16, "d").fit([])
    assert tokeniser.token_text(tokeniser.unknown_id) == "[UNK]"
    with pytest.raises(ValueError, match=r"'\[CLS\]' is no word"):
        word_ids(tokeniser, "[CLS]")
    with pytest.raises(ValueError, match="'§' is not in the vocabulary"):
        word_ids(tokeniser, "§")
