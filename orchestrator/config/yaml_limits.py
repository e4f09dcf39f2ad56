"""Limits the size of a YAML value, checked on the parser's events before the value is built."""

from __future__ import annotations

import yaml

MOST_BYTES = 4 * 2**20  # size of a file
MOST_VALUES = 100_000  # keys and values, where every use of an alias counts
DEEPEST = 100  # levels of nesting; libyaml crashes the process at about a thousand times as many


class TooLargeError(yaml.MarkedYAMLError):
    """A YAML text whose value would be too large, too deeply nested or infinite."""

    def __init__(self, problem: str, mark: yaml.Mark):
        super().__init__(problem=problem, problem_mark=mark)


def check_size(text: str, loader: type) -> None:
    """Check the size of the value of `text`. Raises TooLargeError, and yaml.YAMLError if it is not valid YAML.

    An alias counts as many values as its anchor has: nine levels of nine aliases make 9^9 values in 400 bytes.
    """
    count, sizes = 0, {}
    open_: list[tuple[str | None, int]] = []  # (anchor, count before it) of every open collection
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_):
                raise TooLargeError(f"alias *{event.anchor} is used inside its own anchor", event.start_mark)
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes[anchor] = count - before
        if count > MOST_VALUES:
            raise TooLargeError(f"more than {MOST_VALUES} values, counting every use of an alias", event.start_mark)
        if len(open_) > DEEPEST:
            raise TooLargeError(f"more than {DEEPEST} levels of nesting", event.start_mark)
