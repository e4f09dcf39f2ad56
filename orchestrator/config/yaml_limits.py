"""How large the value of a YAML text would be, told from its events before any of it is built."""

from __future__ import annotations

import yaml

MOST_BYTES = 4 * 2**20  # of a file
MOST_VALUES = 100_000  # keys and values, aliases counted as often as they are used
DEEPEST = 100  # levels of nesting; libyaml ends the process where nesting is a thousand times deeper


class TooLargeError(yaml.MarkedYAMLError):
    """A YAML text whose value would be too large, too deep or endless."""

    def __init__(self, problem: str, mark: yaml.Mark):
        super().__init__(problem=problem, problem_mark=mark)


def check_size(text: str, loader: type) -> None:
    """Raises TooLargeError where the value of `text` has too many parts or levels; yaml.YAMLError where it is no YAML.

    An alias counts as all that it stands for: nine levels of nine aliases are 9^9 values in 400 bytes.
    """
    count, sizes = 0, {}
    open_: list[tuple[str | None, int]] = []  # (anchor, count before it) of every collection that has begun
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_):
                raise TooLargeError(f"alias *{event.anchor} stands within what it names", event.start_mark)
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
            raise TooLargeError(f"more than {MOST_VALUES} values, aliases counted as often as used", event.start_mark)
        if len(open_) > DEEPEST:
            raise TooLargeError(f"more than {DEEPEST} levels of nesting", event.start_mark)
