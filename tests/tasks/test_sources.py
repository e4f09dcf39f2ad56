"""What runs in a process is what was digested: an edit after the import is refused, before any identity is made of it."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks import module_files
from tasks.errors import InputError, RefitError
from tasks.models.text_cnn import TextCNN
from tasks.registry import Entry, Registry
from tasks.sources import require_late_imports, require_sources, source_digests, sources_of, with_sources


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "sf_helper.py").write_text("SCALE = 1\n")
    (tmp_path / "sf_part.py").write_text(
        "class Part:\n    def work(self):\n        import sf_helper\n\n        return sf_helper.SCALE\n"
    )
    yield tmp_path
    for name in ("sf_part", "sf_helper"):
        sys.modules.pop(name, None)


def load():
    return Registry("things", {}).load("sf_part:Part", "config.yaml: thing", ["sf_part"])


def test_built_in_parts_have_no_source_and_keep_their_identity():
    assert sources_of(TextCNN(), TextCNN) == {}
    assert with_sources({"name": "x"}, TextCNN()) == {"name": "x"}


def test_a_part_of_somebody_else_is_known_by_its_source(folder):
    part = load()
    assert sources_of(part()).keys() == {"sf_part"}
    assert sources_of(part)["sf_part"].keys() == {"sf_part", "sf_helper"}
    [(module, digest)] = source_digests(sources_of(part)).items()
    assert (module, len(digest)) == ("sf_part", 32)
    assert with_sources({"name": "x"}, part) == {"name": "x", "sources": {"sf_part": digest}}


def test_an_installed_entry_has_a_source_too(folder):
    found = Registry("things", {"thing": Entry("sf_part:Part", "one")}).load("thing", "config.yaml")
    assert sources_of(found).keys() == {"sf_part"}


@pytest.mark.parametrize("edited", ["sf_part", "sf_helper"])
def test_an_edit_after_the_import_is_refused_when_a_config_asks_again(folder, edited):
    load()().work()
    file = folder / f"{edited}.py"
    file.write_text(file.read_text() + "\nMORE = 2\n")
    with pytest.raises(InputError, match=rf"config\.yaml: thing: module '{edited}'.*was edited after this process"):
        load()


def test_an_edit_while_a_run_goes_on_does_not_change_who_its_parts_are(folder):
    part = load()
    before = source_digests(sources_of(part))
    (folder / "sf_part.py").write_text("class Part:\n    pass\n")
    assert source_digests(sources_of(part)) == before


def test_a_module_that_was_imported_and_edited_before_anybody_looked_is_refused(folder):
    importlib.import_module("sf_part")
    file = folder / "sf_part.py"
    file.write_text(file.read_text() + "\nMORE = 2\n")
    os.utime(file, (time.time() + 1, time.time() + 1))  # file times are coarser than the clock
    with pytest.raises(InputError, match="module 'sf_part' was edited after this process"):
        load()


def test_a_module_that_was_imported_before_anybody_looked_and_not_edited_is_taken(folder):
    importlib.import_module("sf_part")
    assert sources_of(load()).keys() == {"sf_part"}


def test_a_part_loaded_anew_in_the_same_process_is_another_one(folder):
    before = source_digests(sources_of(load()))
    (folder / "sf_part.py").write_text("class Part:\n    pass\n")
    sys.modules.pop("sf_part")
    importlib.invalidate_caches()
    after = source_digests(sources_of(load()))
    assert before.keys() == after.keys()
    assert before != after


def test_a_part_without_a_file_is_refused():
    made = type("Made", (), {"__module__": "sf_made_by_hand"})
    with pytest.raises(InputError, match="module 'sf_made_by_hand' has no file"):
        sources_of(made)


def test_a_worker_with_the_same_source_is_taken_and_with_another_refused(folder):
    part = load()
    known = sources_of(part)
    require_sources(known)
    other = {"sf_part": {**known["sf_part"], "sf_helper": "0" * 32}}
    with pytest.raises(
        RefitError, match=r"module 'sf_helper' is of digest .* on this worker, and of digest 000000000000 "
    ):
        require_sources(other)
    with pytest.raises(RefitError, match="module 'sf_gone' is not there on this worker"):
        require_sources({"sf_part": {**known["sf_part"], "sf_gone": "0" * 32}})


def test_a_worker_may_have_the_same_files_from_a_package_index(folder):
    """Installed from two distributions, where the driver has them side by side."""
    known = sources_of(load())
    for name in ("sf_part", "sf_helper"):
        (folder / f"{name}-1.dist-info").mkdir()
        (folder / f"{name}-1.dist-info" / "top_level.txt").write_text(f"{name}\n")
        (folder / f"{name}-1.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        sys.modules.pop(name, None)
    module_files._is_installation.cache_clear()
    module_files._distributions.cache_clear()
    assert module_files.module_files("sf_part").keys() == {"sf_part"}
    require_sources(known)
    (folder / "sf_helper.py").write_text("SCALE = 1000\n")
    with pytest.raises(RefitError, match="module 'sf_helper' is of digest"):
        require_sources(known)


def test_a_helper_that_is_imported_only_after_it_was_edited_spoils_no_result(folder):
    part = load()
    known = sources_of(part)
    require_sources(known)
    require_late_imports(known)
    (folder / "sf_helper.py").write_text("SCALE = 1000\n")
    require_late_imports(known)  # not imported yet
    part().work()
    with pytest.raises(RefitError, match="module 'sf_helper' was edited before sf_part imported it"):
        require_late_imports(known)


def test_a_helper_that_is_edited_after_it_was_imported_spoils_no_result_either(folder):
    part = load()
    known = sources_of(part)
    part().work()
    require_late_imports(known)
    (folder / "sf_helper.py").write_text("SCALE = 1000\n")
    require_late_imports(known)
    assert part().work() == 1
