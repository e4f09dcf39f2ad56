"""Do saliency and influence agree: influence after a salient token is masked, and influence of examples that hold such a token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from influence.base import Method
from influence.diagnostic import Diagnostic, Panels, QueryMeans, ScoredModels, Table, require_labels
from influence.diagnostics.query_tokens import RANKS, Rank
from influence.diagnostics.rankings import n_of
from influence.diagnostics.saliency import require_embedding, require_tokens
from influence.methods.requirements import require_task
from tasks.errors import InputError
from tasks.seeds import purpose_seed
from tasks.suggestions import listed
from tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

Share = Annotated[float, Field(gt=0, le=1)]


class TokenMasking(Diagnostic):
    """Overlap of a query's top influential examples before and after masking a token, and influence of examples that hold it.

    Of every query the tokens of the lowest, the median and the highest saliency, of the smallest |saliency|, and a random
    one are masked in turn: the attention mask is 0 there, and everything else stays. Special tokens and later pieces of
    words are not masked. The methods then score all train examples for the changed query. `overlap_shares`: the top
    floor(share n) examples of both rankings are compared. `label_after`: repredicted, the new prediction where masking changes
    the prediction, else the label of the query; kept, always the label of the query. `common_random_numbers: false` gives
    a solver that draws at random another seed for the changed queries. `holding_shares`: among the top floor(share n)
    examples of the unchanged query, the mean influence of those that hold the token and have the label of the query;
    influence is z-scored over all train examples. Han et al. 2020, section 4 (Tables 3 and 4, Figures 2 and 3).
    """

    name: ClassVar[str] = "token_masking"
    uses_queries: ClassVar[bool] = True
    labels: ClassVar[tuple[str, ...]] = ("method", "saliency_rank", "top_share")
    explained: ClassVar[str] = (
        "Overlap: the share of a query's top influential examples that are still among them after the token of the given "
        "saliency rank is masked; top share says how many examples are compared. Changed: the share of queries whose "
        "prediction changes. Influence: the mean z-scored influence of those top examples that hold the token and have the "
        "label of the query. Every query counts equally, and the 95% intervals are over queries, for these scoring models."
    )
    figure: ClassVar[Panels | None] = Panels(("method", "top_share"), ("overlap", "changed"), "saliency_rank")
    query_means: ClassVar[Mapping[str, QueryMeans]] = MappingProxyType(
        {
            "": QueryMeans(
                "queries", labels, ("overlap", "changed"), (), "saliency_rank", {"overlap": "k", "changed": ""}
            ),
            "holding": QueryMeans("holding_queries", labels, ("influence",), compared="saliency_rank"),
        }
    )

    methods: tuple[str, ...] | None = None
    ranks: tuple[Rank, ...] = Field(RANKS, min_length=1)
    overlap_shares: tuple[Share, ...] = Field((0.001, 0.002, 0.005, 0.01), min_length=1)
    holding_shares: tuple[Share, ...] = Field((0.1, 0.2, 0.5, 1.0), min_length=1)
    label_after: Literal["repredicted", "kept"] = "repredicted"
    common_random_numbers: bool = True
    batch_size: int = Field(64, ge=1)
    seed: int = Field(0, ge=0, lt=2**32)

    @field_validator("ranks", "overlap_shares", "holding_shares")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError("an entry is listed twice")
        return values

    def check(self, task: Task, base_dir: Path, methods: Mapping[str, Method], n_checkpoints: int, where: str) -> None:
        """Raise InputError if tokens cannot be masked alone, a method has no scores for changed queries, or a share is empty."""
        require_tokens(task, where, self.name)
        require_task(task, Task.with_masked, where, "token_masking needs tokens that can be masked")
        require_task(task, Task.token_counts, where, "token_masking needs the tokens of the train examples")
        if problem := task.model.hidden_token_problem(base_dir):
            raise InputError(where, f"token_masking hides a token, which moves all tokens behind it, since {problem}")
        require_labels(self.methods, methods, where)
        chosen = self.reads_scores_of(methods)
        fixed = [label for label in self.methods or () if label not in chosen]
        if fixed or not chosen:
            problem = f"{fixed[0]!r} has" if fixed else "these methods have"
            able = listed(self._able(methods)) or "none of the methods"
            raise InputError(f"{where}.methods", f"{problem} no scores for a changed query; allowed: {able}")
        self._check_shares(len(task.splits["train"]), where)
        if not self.common_random_numbers and not any(_draws(methods[label]) for label in chosen):
            problem = "false needs a method whose solver draws at random, such as influence_function with lissa"
            raise InputError(f"{where}.common_random_numbers", problem)

    def _check_shares(self, n_train: int, where: str) -> None:
        for option in ("overlap_shares", "holding_shares"):
            for share in getattr(self, option):
                if not n_of(share, n_train):
                    problem = (
                        f"{share} of {n_train} train examples is less than one; allowed: at least {1 / n_train:.2g}"
                    )
                    raise InputError(f"{where}.{option}", problem)

    def check_network(self, task: Task, network: nn.Module, where: str) -> None:
        """Raise InputError if the network has no word embedding."""
        require_embedding(task, network, where)

    def reads_scores_of(self, methods: Mapping[str, Method]) -> list[str]:
        """Return the labels of the methods that are computed again: by default all that can be."""
        return [label for label in self._able(methods) if self.methods is None or label in self.methods]

    def compute(self, models: ScoredModels) -> Mapping[str, Table]:
        """Return the tables `queries` (overlaps) and `holding_queries`, with a row per method, query, token and share."""
        from influence.diagnostics.masked_influence import MaskingRequest, tables

        methods = {label: self._on_changed_queries(method) for label, method in models.methods.items()}
        is_new = self.label_after == "repredicted"
        shares = (self.overlap_shares, self.holding_shares)
        return tables(models, MaskingRequest(methods, self.ranks, *shares, is_new, self.batch_size, self.seed))

    def _on_changed_queries(self, method: Method) -> Method:
        """Return the method that scores the changed queries: the same one, or the same one with another seed of its solver."""
        if self.common_random_numbers or not _draws(method):
            return method
        solver = method.solver  # pyright: ignore[reportAttributeAccessIssue]
        other = solver.model_copy(update={"seed": purpose_seed(solver.seed, "masked tokens")})
        return method.model_copy(update={"solver": other})

    @staticmethod
    def _able(methods: Mapping[str, Method]) -> list[str]:
        """Return the labels of the methods that compute scores from gradients, as opposed to reading or drawing them."""
        return [label for label, method in methods.items() if method.needs]


def _draws(method: Method) -> bool:
    return hasattr(getattr(method, "solver", None), "seed")
