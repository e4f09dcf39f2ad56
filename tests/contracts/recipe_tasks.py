"""The registered recipes with small options, and the tasks on which the contracts train them."""

import influence.registry  # noqa: F401  (registers the recipes of the higher room)
from tasks.models.encoder import Encoder
from tasks.models.text_cnn import TextCNN
from tasks.registry import RECIPES
from tests.fakes import tiny_bert, token_task
from tests.gaussian_fakes import mixture_task
from tests.pair_tasks import ServedPairTask, pair_task
from tests.word_fakes import word_task

SMALL = {"epochs": 3, "batch_size": 5, "batch_sentences": 5, "steps": 15, "learning_rate": 0.01}
SMALL |= {
    "interval": 4,
    "probes": 6,
    "group_size": 2,
    "round_epochs": 2,
    "round_batch_size": 4,
}  # rounds at updates 4 and 8
N_TRAIN = 24


def text_cnn_task(recipe, bert):
    return token_task(TextCNN(embedding_dim=8, filters=4), recipe, n_train=N_TRAIN)


def encoder_task(recipe, bert):
    model, base_state = bert
    return token_task(model, recipe, n_train=N_TRAIN, base_state=base_state)


def pairs_task(recipe, bert):
    model, _ = bert
    return pair_task(model, recipe, n_train=N_TRAIN)


def trunk_task(recipe, bert):
    """Pairs of texts for an encoder whose frozen first layers are computed once; the top layer is trained."""
    model, _ = bert
    frozen = ("bert.embeddings", "bert.encoder.layer.0")
    deeper = model.model_copy(update={"num_layers": 2, "dropout": 0.0, "freeze": frozen})
    return pair_task(deeper, recipe, n_train=N_TRAIN, kind=ServedPairTask)


def word_vectors_task(recipe, bert):
    return word_task(recipe, n_train=N_TRAIN, measured=("words",))


def gaussians_task(recipe, bert):
    return mixture_task(recipe, n_train=N_TRAIN, measured=("means",))


# what a recipe `fits` -> the tasks on which it is tested; the first has no dropout, and no measured split contains
# train rows
TASKS = {
    "word_vectors": {"word_vectors": word_vectors_task},
    "text": {
        "text_cnn": text_cnn_task,
        "encoder_on_pairs": pairs_task,
        "encoder_with_trunk": trunk_task,
        "encoder_with_dropout": encoder_task,
    },
    "gaussians": {"gaussians": gaussians_task},
}


REGISTERED = {name: RECIPES.load(name, "test") for name in sorted(RECIPES.entries())}
# recipes that change a parent's weights do not train a fresh network; they have test modules of their own
CLASSES = {name: cls for name, cls in REGISTERED.items() if not cls.needs_parent}


def plain_task(recipe):
    """Return the task without dropout."""
    return next(iter(TASKS[recipe.fits].values()))(recipe, None)


def small(cls, **options):
    return cls(**{**{name: value for name, value in SMALL.items() if name in cls.model_fields}, **options})


def small_bert(folder):
    """Return an encoder of one layer with dropout whose files lie in `folder`, and its base weights."""
    model = Encoder(pretrained=str(tiny_bert(folder)), max_length=64, num_layers=1, dropout=0.1)
    return model, model.base_state(folder)
