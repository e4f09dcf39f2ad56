"""story.jsonl of a run directory: what happened to every spec, written as it happens and read from another terminal.

One line holds the steps of one spec since the last write, as JSON:

    {"spec": "<id>", "seed": 17, "n_edited": 50, "steps": [["<time>", "<event>", "<from>", "<to>", attempt, "<worker>", "<cause>"], ...]}

`seed` and `n_edited` stand where a step submits the spec. The file is for people: nothing is computed from it, and a line that is
lost or damaged costs only itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

LIMIT_BYTES = 64 << 20
ORDINARY = frozenset({"submit", "result", "publish", "published"})


class Step(NamedTuple):
    """One transition. `time`: ISO 8601, UTC; `old` and `new`: states; `attempt`: 1-based within its session, 0 where there is none."""

    time: str
    event: str
    old: str
    new: str
    attempt: int
    worker: str
    cause: str

    @property
    def is_ordinary(self) -> bool:
        """Whether it belongs to a retrain that succeeds in its first attempt, of which the ledger row says the same."""
        return self.event in ORDINARY and self.attempt < 2 and self.cause in ("", "ok")


@dataclass
class SpecStory:
    """The steps of one spec, oldest first. `seed` and `n_edited` (training examples in its edit) are None where no line says them."""

    spec_id: str
    steps: list[Step]
    seed: int | None = None
    n_edited: int | None = None


class StoryFile:
    """Appends to story.jsonl, at most `limit_bytes` in all.

    Beyond half of the limit, the steps of retrains that go as they should are left out (about 60,000 retrains fit before), and
    beyond the limit everything is.
    """

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES):
        self.path, self.limit_bytes = path, limit_bytes
        self._is_mended = False

    def append(self, stories: Iterable[SpecStory]) -> None:
        """Write one line for each. Raises OSError."""
        if not self._is_mended:
            self._mend()
        with self.path.open("ab") as file:
            size = file.tell()
            if size >= self.limit_bytes:
                return
            if size >= self.limit_bytes // 2:
                stories = [story for story in stories if not all(step.is_ordinary for step in story.steps)]
            file.write("".join(map(_line, stories)).encode())

    def _mend(self) -> None:
        """End the last line, which a crash may have left half written, so that the next one is a line of its own."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if file.tell() and not _ends_in_newline(self.path):
                file.write(b"\n")
        self._is_mended = True


def read_stories(path: Path, prefix: str) -> dict[str, SpecStory]:
    """Spec id -> story, of the specs whose id begins with `prefix`. Lines that cannot be read are left out; no file: nothing."""
    found: dict[str, SpecStory] = {}
    start = f'{{"spec":"{prefix}'.encode()
    try:
        with path.open("rb") as file:
            for line in file:
                if line.startswith(start) and (part := _parsed(line)):
                    whole = found.setdefault(part.spec_id, SpecStory(part.spec_id, []))
                    whole.steps += part.steps
                    whole.seed = part.seed if whole.seed is None else whole.seed
                    whole.n_edited = part.n_edited if whole.n_edited is None else whole.n_edited
    except FileNotFoundError:
        return {}
    return found


def _line(story: SpecStory) -> str:
    """The line in JSON. It is put together by hand, since json.dumps of the whole takes four times as long."""
    about = f'"seed":{story.seed},"n_edited":{story.n_edited},' if story.seed is not None else ""
    return f'{{"spec":"{story.spec_id}",{about}"steps":[{",".join(map(_step, story.steps))}]}}\n'


def _step(step: Step) -> str:
    time, event, old, new, attempt, worker, cause = step
    return f'["{time}","{event}","{old}","{new}",{attempt},{json.dumps(worker)},{json.dumps(cause)}]'


def _parsed(line: bytes) -> SpecStory | None:
    try:
        value = json.loads(line)
        steps = [Step(*step) for step in value["steps"]]
        return SpecStory(str(value["spec"]), steps, value.get("seed"), value.get("n_edited"))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None


def _ends_in_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
