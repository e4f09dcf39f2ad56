"""Registries of influence methods, diagnostics, observers and recipes, one line each.

What a method needs (checkpoints, gradients) is declared on its class.
"""

from __future__ import annotations

from tasks.registry import RECIPES, Entry, Registry

_YEH, _HAN, _HAN2020 = "Yeh et al. 2022", "Han and Tsvetkov 2021", "Han et al. 2020"
METHODS = Registry(
    "methods",
    {
        "tracin": Entry(
            "influence.methods.tracin:TracIn",
            "gradient dot product summed over checkpoints, over chosen layers",
            f"Pruthi et al. 2020; {_YEH}, equation 2",
        ),
        "tracin_last": Entry(
            "influence.methods.tracin_last:TracInLast",
            "tracin on the last layer, from activations and logit gradients",
            f"{_YEH}, section 3.3",
        ),
        "tracin_we": Entry(
            "influence.methods.tracin_we:TracInWE",
            "gradient dot product on the word embeddings, word by word",
            f"{_YEH}, equations 3 and 4",
        ),
        "tracin_we_topk": Entry(
            "influence.methods.tracin_we_topk:TracInWETopK",
            "tracin_we on the k positions with the largest gradients",
            f"{_YEH}, equation 6",
        ),
        "tracin_we_syn": Entry(
            "influence.methods.tracin_we_syn:TracInWESyn",
            "tracin_we_topk with words also matched to words of similar embedding, one to one",
            f"{_YEH}, appendix H",
        ),
        "gradient_cosine": Entry(
            "influence.methods.gradient_cosine:GradientCosine",
            "cosine of the loss gradients over all parameters, or over chosen layers",
            f"{_HAN}, section 2; Barshan et al. 2020",
        ),
        "tfidf": Entry(
            "influence.methods.tfidf:TfIdf",
            "TF-IDF similarity times the dot product of logit gradients",
            f"{_YEH}, equation 7",
        ),
        "influence_function": Entry(
            "influence.methods.influence_function:InfluenceFunction",
            "inverse Hessian between the gradients of the train loss at query and example",
            "Koh and Liang 2017, equation 2",
        ),
        "influence_last": Entry(
            "influence.methods.influence_last:InfluenceLast",
            "influence function on the last layer, from activations captured once and a Hessian in closed form",
            f"{_YEH}, section 5 (Inf-Last); Koh and Liang 2017, equation 2",
        ),
        "representer": Entry(
            "influence.methods.representer:Representer",
            "part of the query's logit due to an example, after a refit of the last layer with an L2 penalty",
            f"Yeh et al. 2018, theorem 3.1; {_YEH}, equation 1",
        ),
        "cross_loss_influence": Entry(
            "influence.methods.cross_loss_influence:CrossLossInfluence",
            "the same for any differentiable loss of the query, whatever loss was trained",
            "Silva et al. 2022, equations 1 and 5",
        ),
        "scores_file": Entry(
            "influence.methods.scores_file:ScoresFile", "a score matrix made elsewhere (npz, parquet or csv)"
        ),
        "random": Entry(
            "influence.methods.random:RandomControl",
            "the control: one permutation of the train set per repeat, shared by all queries",
        ),
        "random_same_label": Entry(
            "influence.methods.random_same_label:RandomSameLabel",
            "the control for the label: random examples of the query's label (proponents) or of the others (opponents)",
        ),
    },
    base="influence.base:Method",
)
OBSERVERS = Registry(
    "observers",
    {
        "confound_influence_difference": Entry(
            "influence.diagnostics.confound_influence_difference:ConfoundInfluenceDifference",
            "gradient-cosine influence of same-label examples: those with a probe's confound minus the others",
            f"{_HAN}, section 6.1",
        ),
    },
    base="tasks.observer:ObserverConfig",
)
DIAGNOSTICS = Registry(
    "diagnostics",
    {
        "cancellation": Entry(
            "influence.diagnostics.cancellation:Cancellation",
            "gradient sizes against the change of the weights, and the mean gradient cosine, by layer, weight and bias",
            f"{_YEH}, sections 3.1-3.3",
        ),
        "last_layer_terms": Entry(
            "influence.diagnostics.last_layer_terms:LastLayerTerms",
            "which term of tracin_last decides a ranking, and how often one proponent recurs over queries",
            f"{_YEH}, appendix G",
        ),
        "saliency": Entry(
            "influence.diagnostics.saliency:Saliency",
            "gradient x word embedding of every token of the queries, beside their most influential examples",
            f"{_HAN2020}, section 2.1",
        ),
        "token_masking": Entry(
            "influence.diagnostics.token_masking:TokenMasking",
            "overlap of top influential examples after a salient token is masked, and influence of examples that hold it",
            f"{_HAN2020}, section 4",
        ),
        "artifact": Entry(
            "influence.diagnostics.artifact:Artifact",
            "quadratic fit of lexical overlap, negation or any number of an example on z-scored influence",
            f"{_HAN2020}, section 5.1",
        ),
    },
    base="influence.diagnostic:Diagnostic",
)
RECIPES.extend(
    {
        "influence_tuning": Entry(
            "influence.recipes.influence_tuning:InfluenceTuning",
            "label loss alternating with a loss over gradient-cosine influences, second order",
            f"{_HAN}, section 4",
        ),
        "embedding_tuning": Entry(
            "influence.recipes.embedding_tuning:EmbeddingTuning",
            "influence tuning on the label's output row: cosines of the last hidden state",
            f"{_HAN}, section 4.1",
        ),
    }
)
