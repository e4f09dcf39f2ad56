"""Influence tuning: fine-tuning that alternates with rounds that equalise the influences of two confound groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import field_validator

from influence.layers import check_selection
from influence.recipes.rounds import Cosines, TuningRounds
from tasks.errors import InputError
from tasks.task import Task

if TYPE_CHECKING:
    from torch import nn


class InfluenceTuning(TuningRounds):
    """Second order: the influences are cosines of the gradients of the train loss.

    I(train, probe) = grad l_train . grad l_probe / (|grad l_train| |grad l_probe|) over `parameters`: all that are
    trained (default), one layer (first ... last), a list of name patterns, or label_row, the label's row of the layer
    onto the logits, which gives embedding tuning. Han and Tsvetkov 2021, section 4 and appendix B.
    """

    name: ClassVar[str] = "influence_tuning"
    version: ClassVar[int] = 1
    selects: ClassVar[dict[str, str]] = {"parameters": "layers"}

    parameters: str | tuple[str, ...] = "all"

    @field_validator("parameters")
    @classmethod
    def _known(cls, parameters: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if parameters != "label_row":
            check_selection(parameters)
        return parameters

    def check_network(self, task: Task, network: nn.Module, where: str) -> None:
        """Raise InputError for `parameters` that this network does not have or whose per-example gradients cannot be computed."""
        from influence.influence_loss import Chosen

        try:
            Chosen.of(task, network, self.parameters)
        except InputError as error:
            raise InputError(f"{where}.parameters", error.problem) from error

    def cosines_of(self, task: Task, network: nn.Module) -> Cosines:
        """Return a function that computes gradient cosines on the chosen parameters."""
        from influence.influence_loss import Chosen, gradient_cosines

        chosen = Chosen.of(task, network, self.parameters)
        return lambda batch, n_probes: gradient_cosines(task, network, batch, chosen, n_probes)
