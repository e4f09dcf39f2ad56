"""The base class of influence methods. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence.checkpoint import Checkpoint, QueryBlock
from tasks.base import Component
from tasks.hooks import overrides, refuse_misspelt
from tasks.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from influence.gradients import GradientShard
    from influence.inverse_hessian import SolveOptions
    from influence.layers import Layers


class Method(Component):
    """Scores the influence of training examples on queries.

    A positive score predicts that the example helps the query: if the example were removed, the query's measurement (such
    as the probability of its gold label, tasks.measurement) would fall. A subclass with scores must define `score`. The
    other methods and attributes are hooks with defaults; a misspelt hook is refused when the class is defined.

    `needs`: a set of names from influence.checkpoint.NEEDS, where each name is explained. They say which gradients the
    gradient shards passed to `score` must hold (influence.gradients.GradientShard), and, by `curvature`, that `solve` must be called.
    The empty set means that the method uses no gradients.
    `uses_checkpoints`: the method sums over every configured checkpoint, else it uses the last one of each scoring
    model. `is_control`: the method has no scores; the planner draws its removal sets at random.
    `follows_query_loss`: the method differentiates the query loss, so that it can explain any label; if false, only
    measurements of the gold label are allowed. `may_diverge`: the method may fail to compute scores for a query; it then
    returns NaN for every train example of that query. NaN from any other method is an error. `is_inner_product`: the score
    is <phi(q), phi(i)> for a map phi of a single example, and `prepare` depends on no query, so that the influence distance
    (influence.diagnostics.mislabel_clusters) is defined.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    uses_checkpoints: ClassVar[bool] = True
    is_control: ClassVar[bool] = False
    follows_query_loss: ClassVar[bool] = True
    may_diverge: ClassVar[bool] = False
    is_inner_product: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        refuse_misspelt(cls, Method, cls.model_fields)

    def takes_last_checkpoint(self) -> bool:
        """Return whether the method uses only the last checkpoint of each scoring model, with weight 1 / number of models."""
        return not self.uses_checkpoints

    def weighs_by_learning_rate(self) -> bool:
        """Return whether a checkpoint's weight includes its learning rate; otherwise it is 1 / number of scoring models."""
        return True

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Refuse options that do not fit this task, before any worker starts and without torch.

        Raises InputError with `where` (file and dotted key).
        """

    def explained_splits(self, task: Task) -> frozenset[str] | None:
        """Return the splits whose rows have the loss that the method explains; None means all measured splits."""
        return None

    def check_network(self, task: Task, network: nn.Module, queries: QueryBlock | None, where: str) -> None:
        """Refuse what can be checked only on a fresh network of the prepared task, such as names of layers.

        The driver calls this before any worker starts. `queries` is None if a model that is not trained yet will select
        them. Raises InputError with `where` (file and dotted key).
        """
        if self.needs:
            from influence.network_checks import check_method

            check_method(self, task, network, queries, where)

    def chosen_layers(self, layers: Layers) -> list[str]:
        """Return the modules whose weight gradients a method with the need `layers` uses; by default all that are trained."""
        return layers.choose("all")

    def solve_options(self) -> SolveOptions:
        """Return how a method with the need `curvature` solves the linear system with the Hessian for its queries.

        A method that overrides only this hook, and not `solve`, gets influence.inverse_hessian.QuerySolutions as
        `prepared`; the work is then shared out (see `shares_solving`).
        """
        raise NotImplementedError

    def options_identity(self, base_dir: Path) -> dict[str, Any]:
        """Return the method's part of the score id, the digest under which its scores are stored: name, version and options.

        A method with an option that names a file overrides this hook, so that the result has the digest of the file's content in
        the place of its path.
        """
        return self.identity()

    def identity_on(self, task: Task) -> dict[str, Any]:
        """Return what the score id contains besides `options_identity` because of the task; empty by default.

        A method overrides this hook if the last digits of its scores depend on how they are computed for this task.
        """
        return {}

    def prepare(self, task: Task, base_dir: Path, queries: QueryBlock) -> Any:
        """Compute what `score` needs besides gradients (an idf table, a score matrix from a file).

        The driver calls this once. The result must be picklable. Uses no torch.
        """
        return None

    def solve(
        self,
        task: Task,
        checkpoints: Sequence[tuple[Checkpoint, float]],
        queries: QueryBlock,
        device: torch.device | str = "cpu",
    ) -> Any:
        """Solve the linear system with the Hessian for the queries at each (checkpoint, weight).

        The result is passed to `score` as `prepared`. By default it holds the solutions that `solve_options` describes.
        If a method with the need `curvature` overrides this hook, each worker calls it once, for all queries.
        Raises InputError if the solver refuses or a pattern matches no parameter, RefitError if a gradient is not finite.
        """
        from influence.inverse_hessian import solve_queries

        return solve_queries(self.solve_options(), task, checkpoints, queries, device)

    def diagnostics(self, solved: Any) -> dict[str, Any]:
        """Return what is recorded about `solved`, the result of `solve`, as plain JSON values."""
        return {}

    def score(self, queries: GradientShard, train: GradientShard, prepared: Any) -> np.ndarray:
        """Return scores float32 [n_queries, n_train of the shard], which depend on nothing but the arguments."""
        raise NotImplementedError

    def words(
        self, queries: GradientShard, train: GradientShard, query_row: int, train_row: int, prepared: Any
    ) -> list[tuple[int, float]]:
        """Split the score of one pair (query, train example) by token: (token id, contribution), largest magnitude first.

        The contributions sum to the score. A method whose scores are sums over the words that both texts contain
        overrides this hook. `query_row` and `train_row` are positions in the shards.
        """
        raise NotImplementedError

    def word_pairs(
        self, queries: GradientShard, train: GradientShard, query_row: int, train_row: int, prepared: Any
    ) -> list[tuple[int, int, float]]:
        """Split the score of one pair by (token of the query, token of the train example): (query token, train token, contribution).

        The contributions sum to the score, largest magnitude first; the report and `refit explain` show them. A method
        that also matches different words, such as synonyms, overrides this hook. By default every token of `words`
        stands on both sides. The arguments are those of `words`.
        """
        return [(token, token, value) for token, value in self.words(queries, train, query_row, train_row, prepared)]

    @property
    def shares_solving(self) -> bool:
        """Whether every query is solved by one worker only and the solutions are stored, so that all workers can score with them.

        This is so for a method with the need `curvature` that leaves `solve` to this class.
        """
        return "curvature" in self.needs and not overrides(self, Method.solve)

    @property
    def has_words(self) -> bool:
        """Whether a score of this method can be split by words."""
        return overrides(self, Method.words) or overrides(self, Method.word_pairs)
