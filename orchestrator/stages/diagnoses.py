"""The diagnostics of the scoring models: their ids, the job that computes the missing ones, and their tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from influence.diagnostic import Diagnostic
from orchestrator.analysis.query_means import with_query_means
from orchestrator.runtime.backend import Backend, ScoreBlock
from orchestrator.runtime.diagnosing import DiagnosticJob
from orchestrator.runtime.patience import patient
from orchestrator.stages.score_shards import GroupScores
from orchestrator.stages.scoring_models import Unfinished
from orchestrator.storage.diagnoses import Tables
from orchestrator.terminal.progress import Progress
from tasks.digests import digest, digest_arrays
from tasks.errors import InputError
from tasks.sources import with_sources


@dataclass(frozen=True)
class GroupDiagnoses:
    """The diagnostics of one scoring group; the store keeps their tables by diagnosis id."""

    scores: GroupScores

    @property
    def diagnostics(self) -> Mapping[str, Diagnostic]:
        """Label -> diagnostic, in the order of the config."""
        return self.scores.experiment.config.diagnostics

    def diagnosis_id(self, label: str) -> str:
        """Return the digest of everything that determines the tables of one diagnostic.

        It covers the scoring specs and their kept steps, the diagnostic with its options, the content of the measured
        splits, and, where the diagnostic reads them, the queries and the ids of the scores with their labels.
        """
        diagnostic, scores = self.diagnostics[label], self.scores
        queries = scores.queries
        read = diagnostic.reads_scores_of(scores.experiment.scored)
        return digest(
            {
                "scoring": [[s.work.spec_id, list(s.work.keep_steps)] for s in scores.scoring],
                "diagnostic": with_sources(diagnostic.identity(), *diagnostic.made_of),
                "recorded": scores.arm.task_id,
                "queries": [queries.split, digest_arrays(ids=queries.ids, labels=queries.labels)]
                if diagnostic.uses_queries
                else None,
                # a list, because the tables are in the order of the methods
                "scores": [[name, scores.score_id(scores.experiment.scored[name])] for name in read],
            }
        )

    def tables(self, label: str) -> Tables | None:
        """Return the stored tables of one diagnostic; None if they are missing or damaged."""
        return self.scores.store.diagnoses.load(self.diagnosis_id(label))

    def missing(self) -> list[str]:
        """Return the labels of the diagnostics whose tables are not in the store."""
        return [label for label in self.diagnostics if self.tables(label) is None]

    def job(self, labels: Sequence[str]) -> DiagnosticJob:
        """Return one job that computes the diagnostics with these labels."""
        self.scores.arm.task.prepare()
        checkpoints, scored = self.scores.checkpoints(), self.scores.experiment.scored
        given = {}
        for label in labels:
            read = self.diagnostics[label].reads_scores_of(scored)
            given[label] = {
                "checkpoints": checkpoints,
                "queries": self.scores.queries,
                "methods": {name: scored[name] for name in read},
                "scores": {name: self.scores.matrix(name) for name in read},
            }
        ranges = [(position, position + 1) for position in range(len(labels))]
        return DiagnosticJob({label: self.diagnostics[label] for label in labels}, given, ranges, self.scores.group.arm)

    def keep(self, label: str, tables: Tables) -> None:
        """Store the tables of one diagnostic."""
        self.scores.store.diagnoses.put(self.diagnosis_id(label), tables)


@dataclass(frozen=True)
class Diagnoses:
    """The diagnostics of all scoring groups of a run, by the key of the group."""

    groups: Mapping[str, GroupDiagnoses]

    def missing(self) -> dict[str, list[str]]:
        """Return scoring group -> labels of the diagnostics that are not in the store; complete groups are left out."""
        return {key: found for key, group in self.groups.items() if (found := group.missing())}

    def compute(
        self,
        backend: Callable[[], Backend],
        progress: Progress,
        on_block: Callable[[ScoreBlock], None],
        alive: Callable[[], None],
    ) -> None:
        """Compute and store every missing diagnosis; the arguments are those of ScoringModels.compute."""
        missing = self.missing()
        total, done = sum(map(len, missing.values())), 0
        progress.begin("diagnostics", total)
        for key, labels in missing.items():
            for block in backend().score(self.groups[key].job(labels), alive):
                for label, tables in block.tables.items():
                    patient(self.groups[key].keep, meanwhile=alive)(label, tables)
                    done += 1
                progress.update(done, total)
                on_block(block)
        progress.end()

    def frames(self) -> dict[str, dict[str, pd.DataFrame]]:
        """Return label -> its tables by name. With several scoring groups, the first column `scored_on` names the group.

        Raises Unfinished while a diagnosis is missing.
        """
        found: dict[str, dict[str, list[pd.DataFrame]]] = {}
        for key, group in self.groups.items():
            for label, diagnostic in group.diagnostics.items():
                tables = group.tables(label)
                if tables is None:
                    raise Unfinished(f"the diagnostic {label} has not been computed yet; refit run computes it")
                frames = with_query_means(
                    {name: _frame(table) for name, table in tables.items()}, diagnostic.query_means
                )
                for name, frame in frames.items():
                    if len(self.groups) > 1:
                        frame.insert(0, "scored_on", key)
                    found.setdefault(label, {}).setdefault(name, []).append(frame)
        return {
            label: {name: pd.concat(frames, ignore_index=True) for name, frames in tables.items()}
            for label, tables in found.items()
        }


def by_file_name(found: Mapping[str, Mapping[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Return the tables of all diagnostics by their file names. Raises InputError if two of them would be one file."""
    tables: dict[str, pd.DataFrame] = {}
    for label, named in found.items():
        for name, table in named.items():
            file = file_name(label, name)
            if file in tables:
                raise InputError("diagnose", f"two tables would be results/{file}.csv; give {label!r} another `as:`")
            tables[file] = table
    return tables


def file_name(label: str, name: str) -> str:
    """Return the name under results/, without `.csv`, of a table of a diagnostic; the main table has the name ""."""
    return "_".join(filter(None, ("diagnose", label, name)))


def _frame(table: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    return pd.DataFrame({column: _column(values) for column, values in table.items()})


def _column(values: Sequence[Any]) -> pd.Series:
    """Return a column; a missing value makes a column of numbers float64, with NaN there."""
    numbers = [value for value in values if value is not None]
    is_numeric = bool(numbers) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers)
    missing = len(numbers) < len(values)
    return pd.Series(list(values), dtype="float64" if is_numeric and missing else None)
