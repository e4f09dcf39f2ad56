"""What runs in a process is what was digested: an edit after the import is refused, before any identity is made of it."""

from __future__ import annotations

import importlib
import os
import py_compile
import subprocess
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
    with pytest.raises(RefitError, match="module 'sf_gone' is missing on this worker"):
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


def edit_unseen(file: Path, old: str, new: str) -> None:
    """An edit of the same size that keeps the time of the file, beside bytecode of the source before it."""
    py_compile.compile(str(file), doraise=True)
    times = file.stat()
    file.write_text(file.read_text().replace(old, new))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_size == times.st_size
    importlib.invalidate_caches()


EDITS = {"sf_helper": ("SCALE = 1", "SCALE = 7"), "sf_part": ("sf_helper.SCALE", "7 + 00000000000")}


@pytest.mark.parametrize("edited", EDITS)
def test_stale_bytecode_is_not_run_under_the_identity_of_the_new_source(folder, edited):
    edit_unseen(folder / f"{edited}.py", *EDITS[edited])
    part = load()
    assert part().work() == 7
    require_late_imports(sources_of(part))


@pytest.mark.parametrize("edited", EDITS)
def test_stale_bytecode_imported_before_anybody_looked_is_refused_once_and_removed(folder, edited):
    edit_unseen(folder / f"{edited}.py", *EDITS[edited])
    importlib.import_module(edited)
    with pytest.raises(InputError, match=rf"module '{edited}' from cached bytecode of another version of its source"):
        load()
    for name in ("sf_part", "sf_helper"):
        sys.modules.pop(name, None)
    importlib.import_module(edited)
    load()


def test_stale_bytecode_that_cannot_be_removed_is_refused(folder, monkeypatch):
    def unlink(*_arguments, **_options):
        raise PermissionError(13, "Permission denied")

    edit_unseen(folder / "sf_helper.py", *EDITS["sf_helper"])
    monkeypatch.setattr(os, "unlink", unlink)  # the superuser, who may run the tests, can remove everything
    with pytest.raises(
        InputError, match=r"config\.yaml: thing: .*sf_helper\..*pyc was not compiled from the present .*sf_helper\.py"
    ):
        load()


def test_bytecode_of_the_source_is_kept_and_used(folder):
    cached = Path(py_compile.compile(str(folder / "sf_helper.py"), doraise=True))
    before = cached.read_bytes()
    assert load()().work() == 1
    assert cached.read_bytes() == before


def in_a_process(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Python as people run it: bytecode is written."""
    root = Path(__file__).resolve().parents[2]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "PYTHONPATH": os.pathsep.join([str(folder), str(root)])}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


LOADED = """
from tasks.registry import Registry
from tasks.sources import source_digests, sources_of
part = Registry("things", {}).load("sf_part:Part", "config.yaml: thing", ["sf_part"])
print(part().work(), source_digests(sources_of(part))["sf_part"])
"""


def test_the_same_command_computes_with_the_source_it_digests(folder):
    first = in_a_process(folder, LOADED)
    assert (folder / "__pycache__").is_dir(), first.stderr
    edit_unseen(folder / "sf_helper.py", *EDITS["sf_helper"])
    second = in_a_process(folder, LOADED)
    assert (first.stdout.split()[0], second.stdout.split()[0]) == ("1", "7"), second.stderr
    assert first.stdout.split()[1] != second.stdout.split()[1]


WORKER = """
import sys
from tasks.errors import RefitError
from tasks.module_files import module_files
from tasks.sources import require_sources
EARLY
try:
    require_sources({"sf_part": module_files("sf_part")})
except RefitError as error:
    sys.exit(str(error))
import sf_helper
print(sf_helper.SCALE)
"""


def test_a_worker_does_not_run_stale_bytecode(folder):
    edit_unseen(folder / "sf_helper.py", *EDITS["sf_helper"])
    assert in_a_process(folder, WORKER.replace("EARLY", "")).stdout == "7\n"


def test_a_worker_that_has_imported_stale_bytecode_is_refused(folder):
    edit_unseen(folder / "sf_helper.py", *EDITS["sf_helper"])
    code = WORKER.replace("EARLY", "import sf_helper")
    assert "module 'sf_helper' from cached bytecode" in in_a_process(folder, code).stderr
    assert in_a_process(folder, code).stdout == "7\n"


BEFORE_REFIT = """
from pathlib import Path
file = Path(FOLDER) / "sf_part.py"
EDIT_BEFORE
import sf_part
EDIT_AFTER
import tasks.sources
"""
EDIT = "file.write_text('class Part:\\n    def work(self):\\n        return 7\\n')"


def started_with(folder: Path, before: str = "", after: str = "") -> subprocess.CompletedProcess[str]:
    """A process that imports a part by hand, and only then Refit."""
    older = time.time() - 3600
    os.utime(folder / "sf_part.py", (older, older))
    code = BEFORE_REFIT.replace("EDIT_BEFORE", before).replace("EDIT_AFTER", after)
    return in_a_process(folder, code.replace("FOLDER", repr(str(folder))) + LOADED)


def test_a_module_that_was_imported_before_refit_and_edited_is_refused(folder):
    done = started_with(folder, after=EDIT)
    assert (
        "InputError: config.yaml: thing: module 'sf_part' was edited after this process had imported it" in done.stderr
    )


def test_a_module_that_was_imported_before_refit_and_not_edited_is_taken(folder):
    done = started_with(folder)
    assert done.stdout.startswith("1 "), done.stderr


def test_a_module_written_and_imported_by_hand_after_refit_is_taken(folder):
    done = started_with(folder, before=f"import tasks.sources; {EDIT}")
    assert done.stdout.startswith("7 "), done.stderr


def test_a_file_from_the_future_is_not_answered_with_start_again(folder):
    future = time.time() + 1e6
    os.utime(folder / "sf_part.py", (future, future))
    importlib.import_module("sf_part")
    with pytest.raises(
        InputError, match=r"'sf_part': the modification time of .*sf_part\.py lies in the future .*touch"
    ) as caught:
        load()
    assert "start the command again" not in str(caught.value)
    os.utime(folder / "sf_part.py", (time.time() - 60, time.time() - 60))
    assert load()().work() == 1


def test_the_start_of_a_process_lies_between_its_launch_and_its_first_line(folder):
    before = time.time()
    done = in_a_process(folder, "from tasks.process_start import process_start\nprint(process_start())")
    assert before - 0.1 < float(done.stdout) < time.time()
