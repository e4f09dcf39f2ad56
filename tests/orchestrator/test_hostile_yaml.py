"""YAML that is too large, too deep, endless or no text is refused in one line, before its value is built."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from orchestrator.cli import main
from orchestrator.config.yaml_files import ConfigError, apply_overrides, read_yaml, write_yaml
from orchestrator.config.yaml_limits import DEEPEST, MOST_BYTES, MOST_VALUES

ROOT = Path(__file__).resolve().parents[2]


def bomb(levels: int, width: int, merge: bool = False) -> str:
    """Every level uses the one before it `width` times: width^levels values."""
    first = "{k: v}" if merge else '["x"]'
    lines = [f"l0: &l0 {first}"]
    for level in range(1, levels + 1):
        uses = ",".join([f"*l{level - 1}"] * width)
        lines.append(f"l{level}: &l{level} " + (f"{{<<: [{uses}]}}" if merge else f"[{uses}]"))
    return "\n".join(lines)


HOSTILE = {
    "aliases of aliases": (bomb(9, 9), f"more than {MOST_VALUES} values"),
    "more aliases than memory": (bomb(60, 60), f"more than {MOST_VALUES} values"),
    "merge keys of merge keys": (bomb(9, 9, merge=True), f"more than {MOST_VALUES} values"),
    "a list of one long alias": (
        "a: &a [" + "1," * 2000 + "1]\nb: [" + "*a," * 1999 + "*a]",
        f"more than {MOST_VALUES} values",
    ),
    "an alias of itself": ("a: &a [1, *a]", "*a is used inside its own anchor"),
    "an alias of a mapping around it": ("a: &a {b: {c: *a}}", "*a is used inside its own anchor"),
    "a merge of itself": ("a: &a {<<: *a}", "*a is used inside its own anchor"),
    "an alias of nothing": ("a: *b", "undefined alias"),
    "deep lists": ("a: " + "[" * 5000 + "]" * 5000, f"more than {DEEPEST} levels"),
    "lists too deep for libyaml": ("[" * 500_000, f"more than {DEEPEST} levels"),
    "deep mappings": ("{a: " * 3000, f"more than {DEEPEST} levels"),
    "deep block lists": ("- " * 3000, f"more than {DEEPEST} levels"),
    "deep keys": ("? " * 3000, f"more than {DEEPEST} levels"),
    "many values": ("a: [" + "1," * MOST_VALUES + "1]", f"more than {MOST_VALUES} values"),
    "a long file": ("a: " + "x" * MOST_BYTES, f"at most {MOST_BYTES} bytes"),
    "a long comment": ("#" * (MOST_BYTES + 1), f"at most {MOST_BYTES} bytes"),
    "a number of many digits": ("a: " + "9" * 10_000, "not valid YAML"),
    "a number of many hexadecimal digits": ("a: 0x" + "f" * 10_000, "a: this integer has 40000 bits"),
    "an infinite number": ("a: 1e999", "finite"),
    "a key twice": ("a: 1\nb: 2\na: 3", "line 3: not valid YAML: duplicate key 'a'"),
    "a key twice in a list": ("a: [{b: 1, b: 1}]", "duplicate key 'b'"),
    "a list as key": ("? [a, b]\n: 1", "not valid YAML"),
    "null as key": ("~: 1", "key None is not text"),
    "a set": ("a: !!set {b, c}", "a: "),
    "bytes": ("a: !!binary aGVsbG8=", "a: b'hello' is a bytes"),
    "pairs": ("a: !!pairs [b: 1]", "a[0]: "),
    "a time": ("a: !!timestamp 2026-11-01", "a: "),
    "a tag of nobody": ("a: !refit/thing 1", "could not determine a constructor"),
    "an object": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "two documents": ("a: 1\n---\na: 2", "not valid YAML"),
    "NUL by its escape": ('a: "b\\0c"', "a: the text contains the character"),
    "NUL in a key": ('"b\\0c": 1', "contains a character that is not allowed in names"),
    "a control character": ("a: b\x00c", "not valid YAML"),
    "a tab as indentation": ("a:\n\tb: 1", "not valid YAML"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_refused_in_one_line(kind, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(HOSTILE[kind][0])
    assert main(["plan", str(path)]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith(f"refit: {path}")
    assert HOSTILE[kind][1] in err
    assert len(err) < 1000


@pytest.mark.parametrize("content", [b"\x7fELF" + bytes(range(256)) * 8, b"PK\x03\x04\xff", b"\xff\xfea\x00:\x00"])
def test_files_that_are_no_text(content, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"not UTF-8|not valid YAML"):
        read_yaml(path)


def test_a_file_without_end_is_not_read_to_its_end():
    with pytest.raises(ConfigError, match=r"/dev/zero: is too large for a config"):
        read_yaml(Path("/dev/zero"))


def test_an_override_is_bounded_as_the_file_is(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: 1")
    with pytest.raises(ConfigError, match=r"--set a.*levels of nesting"):
        apply_overrides({"a": 1}, ["a=" + "[" * 50_000], path)


def test_aliases_and_merge_keys_of_people_are_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\ntwo: [*b, *b]\nthree: *b\n")
    b = {"x": 1, "y": 2}
    assert read_yaml(path) == {"base": b, "one": {"x": 1, "y": 3}, "two": [b, b], "three": b}


def test_many_keys_are_refused_by_the_first_of_them(tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text("name: x\n" + "".join(f"key{i}: {i}\n" for i in range(45_000)))
    assert main(["plan", str(path)]) == 2
    assert "key0: unknown key 'key0'" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_both_parsers_of_pyyaml_agree_on_the_shipped_configs(path, tmp_path):
    """libyaml reads where it is there, else the parser in Python: the same events, and what is read can be written and read again."""
    text = path.read_text(encoding="utf-8")
    in_c, in_python = (list(map(repr, yaml.parse(text, Loader=one))) for one in (yaml.CSafeLoader, yaml.SafeLoader))
    assert in_c == in_python
    again = tmp_path / "again.yaml"
    again.write_text(write_yaml(read_yaml(path)), encoding="utf-8")
    assert read_yaml(again) == read_yaml(path)
