"""Which files a module is made of: whatever of it, or of a module beside it that it imports, is edited changes what it is."""

from __future__ import annotations

import compileall
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.module_files import is_built_in, module_files

Write = Callable[[str, str], Path]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def write(folder) -> Write:
    def write(path: str, source: str = "") -> Path:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(source))
        return file

    return write


@pytest.mark.parametrize(
    ("importing", "files"),
    [
        ("import mf_helper", {"mf_helper.py": ""}),
        ("import mf_helper as other", {"mf_helper.py": ""}),
        ("from mf_helper import thing", {"mf_helper.py": ""}),
        ("def late():\n    from mf_helper import thing", {"mf_helper.py": ""}),
        ("try:\n    import mf_helper\nexcept ImportError:\n    pass", {"mf_helper.py": ""}),
        (
            "import mf_pkg.inner.leaf",
            {"mf_pkg/__init__.py": "", "mf_pkg/inner/__init__.py": "", "mf_pkg/inner/leaf.py": ""},
        ),
        ("from mf_pkg import leaf", {"mf_pkg/__init__.py": "", "mf_pkg/leaf.py": ""}),
        ("from mf_space.leaf import x", {"mf_space/leaf.py": ""}),
        ("import mf_space.inner.deep.leaf", {"mf_space/inner/deep/leaf.py": ""}),
        ("from mf_pkg import *", {"mf_pkg/__init__.py": "__all__ = ['leaf']", "mf_pkg/leaf.py": ""}),
        ("import importlib\nimportlib.import_module('mf_helper')", {"mf_helper.py": ""}),
        ("import mf_helper", {"mf_helper.py": "import mf_deeper", "mf_deeper.py": "import mf_helper"}),
    ],
)
def test_what_is_imported_from_beside_it_belongs_to_it(write, importing, files):
    write("mf_part.py", importing)
    for path, source in files.items():
        write(path, source)
    names = {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in files}
    assert module_files("mf_part").keys() == {"mf_part", *names}
    assert not [name for name in ("mf_part", *names) if name in sys.modules], "nothing is imported to find out"


@pytest.mark.parametrize(
    "importing",
    [
        "from . import leaf",
        "from .leaf import x",
        "from ..shared import y",
        "import importlib\nimportlib.import_module('.leaf', __package__)",
    ],
)
def test_relative_imports_and_packages_above_belong_to_it(write, importing):
    write("mf_top/__init__.py", "from mf_top import settings")
    write("mf_top/settings.py")
    write("mf_top/shared.py")
    write("mf_top/parts/__init__.py")
    write("mf_top/parts/leaf.py")
    write("mf_top/parts/part.py", importing)
    found = module_files("mf_top.parts.part").keys()
    above = {"mf_top", "mf_top.settings", "mf_top.parts", "mf_top.parts.part"}
    assert found == above | {"mf_top.shared" if "shared" in importing else "mf_top.parts.leaf"}


def test_what_is_not_beside_it_does_not_belong_to_it(write):
    write(
        "mf_part.py", "import json\nimport numpy.linalg\nimport influence.base\nimport mf_absent\nfrom .. import above"
    )
    write("mf_neighbour.py")
    assert module_files("mf_part").keys() == {"mf_part"}


def test_a_folder_of_installed_packages_is_looked_at_by_distribution(folder, write):
    """Of what is installed beside a plugin only what was installed with it is its own."""
    write("mf_part.py", "import mf_sibling\nimport mf_stranger")
    write("mf_sibling.py")
    write("mf_stranger.py")
    write("mf_dist-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: mf-dist\nVersion: 1\n")
    write("mf_dist-1.dist-info/top_level.txt", "mf_part\nmf_sibling\n")
    write("mf_other-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: mf-other\nVersion: 1\n")
    write("mf_other-1.dist-info/top_level.txt", "mf_stranger\n")
    from tasks import module_files as module

    module._distributions.cache_clear()
    assert module_files("mf_part").keys() == {"mf_part", "mf_sibling"}


@pytest.mark.parametrize("edited", ["mf_part.py", "mf_helper.py"])
def test_any_edit_is_seen_also_of_the_same_length(write, edited):
    write("mf_part.py", "from mf_helper import pool\n\nKIND = 'max'\n")
    write("mf_helper.py", "def pool(x):\n    return x.max()\n")
    before = module_files("mf_part")
    file = write(edited, "")
    file.write_text(
        {"mf_part.py": "from mf_helper import pool\n\nKIND = 'sum'\n"}.get(edited, "def pool(x):\n    return x.min()\n")
    )
    after = module_files("mf_part")
    assert {name for name in before if before[name] != after[name]} == {edited.removesuffix(".py")}


def test_the_place_of_the_files_does_not_matter(tmp_path, monkeypatch):
    found = []
    for name in ("one", "two"):
        place = tmp_path / name
        place.mkdir()
        (place / "mf_part.py").write_text("import mf_helper")
        (place / "mf_helper.py").write_text("")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(place))
            found.append(module_files("mf_part"))
    assert found[0] == found[1]
    assert len(found[0]) == 2


def test_an_archive_is_read_like_a_folder(tmp_path, monkeypatch):
    archive = tmp_path / "plugins.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("mf_part.py", "import mf_helper")
        stream.writestr("mf_helper.py", "")
    monkeypatch.syspath_prepend(str(archive))
    assert module_files("mf_part").keys() == {"mf_part", "mf_helper"}


def test_bytecode_without_source_counts_with_its_bytes(write, folder):
    file = write("mf_part.py", "X = 1\n")
    compileall.compile_file(str(file), legacy=True, quiet=1, force=True)
    file.unlink()
    assert (folder / "mf_part.pyc").is_file()
    before = module_files("mf_part")
    file.write_text("X = 2\n")
    compileall.compile_file(str(file), legacy=True, quiet=1, force=True)
    file.unlink()
    assert before.keys() == module_files("mf_part").keys() == {"mf_part"}
    assert before != module_files("mf_part")


def test_a_module_that_is_not_there_has_no_files(folder):
    assert module_files("mf_nothing.at_all") == {}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("tasks.models.text_cnn", True),
        ("influence", True),
        ("orchestrator.x", True),
        ("tasks_of_mine", False),
        ("my.tasks", False),
    ],
)
def test_built_in_is_what_lies_in_the_rooms(module, expected):
    assert is_built_in(module) is expected
