"""Turns labels as the data gives them into classes, and refuses mistakes that would train another model than intended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from tasks.components import place
from tasks.data.wording import quoted, shown
from tasks.errors import InputError
from tasks.suggestions import did_you_mean

_MOST_DIGITS = 4300  # the longest whole number that Python converts to text


def label_texts(values: Sequence[Any], where: Callable[[int], str]) -> list[str]:
    """Return the labels of a column as text; whole numbers may be floats (1.0 is the label 1).

    `where(row)` names a row in errors. Raises InputError on a missing label, on a value that is neither text nor a
    whole number, and on a column that mixes text, numbers and booleans, because 1, "1" and true would otherwise become
    one label.
    """
    found: list[str] = []
    first_of: dict[str, int] = {}
    for row, value in enumerate(values):
        kind = _kind(value, where, row)
        if first_of.setdefault(kind, row) == row and len(first_of) > 1:
            other = next(iter(first_of.values()))
            problem = (
                f"the label {shown(value)} is {kind}, and {shown(values[other])} in {where(other)} is "
                f"{_kind(values[other], where, other)}; the labels of a column must be of one kind"
            )
            raise InputError(where(row), problem)
        found.append(_text(value, where, row))
    return found


def _kind(value: Any, where: Callable[[int], str], row: int) -> str:
    if isinstance(value, str) and value.strip():
        return "text"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int) or (isinstance(value, (float, Decimal)) and _is_whole(value)):
        return "a number"
    is_missing = value is None or isinstance(value, str) or value != value
    raise InputError(where(row), f"{'no label' if is_missing else shown(value)}; labels are text or whole numbers")


def _is_whole(value: float | Decimal) -> bool:
    return value == value and abs(value) != float("inf") and value == int(value)


def _text(value: Any, where: Callable[[int], str], row: int) -> str:
    if isinstance(value, (float, Decimal)):
        value = int(value)
    try:
        text = str(value)
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(where(row), f"a lone surrogate at character {error.start} is not Unicode text") from error
    except ValueError as error:
        raise InputError(
            where(row), f"a label of more than {_MOST_DIGITS} digits; labels are text or whole numbers"
        ) from error
    return text


def _mapping(labels: Any) -> Any:
    if isinstance(labels, str):
        raise ValueError(
            f"{shown(labels)} is no mapping from labels to classes; the column of labels is named by another key: did you mean 'label'?"
        )
    return labels


def _checked(labels: dict[str, str]) -> dict[str, str]:
    if not labels:
        raise ValueError("at least one label is needed")
    forms: dict[str, str] = {}
    for label, name in labels.items():
        if not name.strip():
            raise ValueError(f"label {shown(label)} becomes {shown(name)}; a class needs a name")
        other = forms.setdefault(name.strip(), name)
        if other != name:
            raise ValueError(f"the classes {shown(other)} and {shown(name)} differ only in the blanks around them")
    return labels


# a label in the file -> the class that it stands for
LabelMap = Annotated[dict[str, str], BeforeValidator(_mapping), AfterValidator(_checked)]


def mapped_labels(
    labels: Sequence[str],
    rows: Sequence[int],
    classes: Mapping[str, str],
    cell: Callable[[int], str],
    where: object,
    key: str,
) -> list[str]:
    """Return the class of every label; a label outside `rows`, the records that are used, may have none and stays.

    `classes` is the block `key` of the config file `where`, and `cell(row)` names a label in messages. Raises
    InputError on the first used label that `classes` does not name, and on a name in it that no label of the whole
    source has, because such a name is a spelling mistake.
    """
    for row in rows:
        if labels[row] not in classes:
            problem = f"label {shown(labels[row])} is not named in {key}: {quoted(classes)}{did_you_mean(labels[row], classes)}"
            raise InputError(cell(row), problem)
    there = dict.fromkeys(labels)
    for name in classes:
        if name not in there:
            problem = f"no record has the label {shown(name)}; labels: {quoted(there)}{did_you_mean(name, there)}"
            raise InputError(place(where, key), problem)
    return [classes.get(label, label) for label in labels]


def check_spelling(labels: Sequence[str], where: str) -> None:
    """Refuse labels that differ only in surrounding blanks: they would be trained as different classes.

    Raises InputError naming both spellings in quotes with the number of records of each.
    """
    counts = Counter(labels)
    first: dict[str, str] = {}
    for label in counts:
        other = first.setdefault(label.strip(), label)
        if other != label:
            problem = (
                f"the labels {shown(other)} ({_records(counts[other])}) and {shown(label)} ({_records(counts[label])}) "
                "differ only in the blanks around them and would be two classes; spell them the same in the file"
            )
            raise InputError(where, problem)


def _records(n: int) -> str:
    return f"{n} record{'' if n == 1 else 's'}"
