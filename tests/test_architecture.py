"""The rooms and what they must not import: layers, homes of heavy dependencies, purity, and no torch where answers must be fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("tasks", "influence", "orchestrator")
HOMES = {
    "ray": ("orchestrator/runtime/ray_backend.py",),
    "mlflow": ("orchestrator/tracking/mlflow_tracker.py",),
    "obstore": ("orchestrator/storage/",),
    "pyarrow": ("orchestrator/storage/", "tasks/data/"),
}
FORBIDDEN = {
    "tasks/": {"ray", "mlflow"},
    "influence/": {"ray", "mlflow", "pyarrow"},
    "influence/matrix.py": {"torch"},
    "influence/ranking.py": {"torch"},
    "influence/registry.py": {"torch"},
    **{
        pure: {"torch", "transformers", "ray", "mlflow", "pyarrow", "time", "os"}
        for pure in (
            "orchestrator/records.py",
            "orchestrator/campaigns/",
            "orchestrator/scheduling/",
            "orchestrator/analysis/",
        )
    },
    "orchestrator/runtime/": {"mlflow", "pyarrow"},
}
# The rooms from the ground up: a file may import from its own room and from rooms before it. A path that ends in a slash stands
# for a folder, without the files and folders that another line names.
ROOMS = (
    (
        "ground",
        "tasks/errors.py",
        "tasks/digests.py",
        "tasks/seeds.py",
        "tasks/suggestions.py",
        "tasks/bytecode.py",
        "tasks/process_start.py",
        "tasks/memory.py",
        "tasks/module_files.py",
        "tasks/data/edits.py",
        "tasks/data/wording.py",
        "tasks/__init__.py",
    ),
    (
        "what a part is",
        "tasks/base.py",
        "tasks/hooks.py",
        "tasks/task.py",
        "tasks/observer.py",
        "tasks/recipe.py",
        "tasks/model.py",
        "tasks/measurement.py",
        "tasks/registry.py",
        "tasks/components.py",
        "tasks/sources.py",
        "tasks/resuming.py",
    ),
    ("data", "tasks/data/"),
    ("models", "tasks/models/"),
    ("training", "tasks/training.py", "tasks/length_groups.py", "tasks/stacked.py"),
    ("recipes", "tasks/recipes/"),
    ("tasks", "tasks/"),
    ("what a method is", "influence/"),
    ("methods", "influence/methods/", "influence/diagnostics/", "influence/recipes/"),
    ("scoring", "influence/scoring.py"),
    ("records", "orchestrator/records.py", "orchestrator/registry.py"),
    ("analysis", "orchestrator/analysis/"),
    ("scheduling", "orchestrator/scheduling/"),
    ("storage", "orchestrator/storage/"),
    ("runtime", "orchestrator/runtime/"),
    ("spending", "orchestrator/spending/"),
    ("tracking", "orchestrator/tracking/"),
    ("config", "orchestrator/config/"),
    ("experiment", "orchestrator/experiment/"),
    ("report", "orchestrator/report/"),
    ("campaigns", "orchestrator/campaigns/"),
    ("deletion", "orchestrator/campaigns/deletion/"),
    ("leave-one-out", "orchestrator/campaigns/leave_one_out/"),
    ("recipe grid", "orchestrator/campaigns/recipe_grid/"),
    ("debias", "orchestrator/campaigns/debias/"),
    ("mislabels", "orchestrator/campaigns/mislabels/"),
    ("lds", "orchestrator/campaigns/lds/"),
    ("terminal", "orchestrator/terminal/"),
    ("stages", "orchestrator/stages/"),
    ("forecast", "orchestrator/forecast/"),
    ("inspection", "orchestrator/inspection/"),
    ("the ways in", "orchestrator/"),
)
CAMPAIGN_ROOMS = ("deletion", "leave-one-out", "recipe grid", "debias", "mislabels")
FILES_AT_THE_TOP = 8
SOURCES = sorted(path.relative_to(ROOT).as_posix() for room in LAYERS for path in (ROOT / room).rglob("*.py"))


@cache
def imported(source: str) -> frozenset[str]:
    """Full names of the modules and of the names in them that a file imports: at any depth, also for types only."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / source).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{source}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


@cache
def imported_files(source: str) -> frozenset[str]:
    """The files of the three packages that a file imports."""
    paths = (name.replace(".", "/") for name in imported(source))
    candidates = {candidate for path in paths for candidate in (f"{path}.py", f"{path}/__init__.py")}
    return frozenset(candidates & set(SOURCES) - {source})


def room_of(source: str) -> int:
    """The place of a file's room in ROOMS: the room that names the longest part of its path."""
    fits = [
        (len(path), place)
        for place, (_, *paths) in enumerate(ROOMS)
        for path in paths
        if source == path or (path.endswith("/") and source.startswith(path))
    ]
    return max(fits)[1]


def texts(source: str) -> set[str]:
    """String constants of a file that look like a dotted path into a room."""
    tree = ast.parse((ROOT / source).read_text(encoding="utf-8"))
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value
    }


def test_there_are_sources():
    assert len(SOURCES) > 50


@pytest.mark.parametrize("source", SOURCES)
def test_no_file_imports_from_a_higher_room(source):
    here = room_of(source)
    higher = {f"{file} ({ROOMS[room_of(file)][0]})" for file in imported_files(source) if room_of(file) > here}
    assert not higher, f"{source} is in the room {ROOMS[here][0]!r}"


@pytest.mark.parametrize("source", [source for source in SOURCES if ROOMS[room_of(source)][0] in CAMPAIGN_ROOMS])
def test_no_campaign_imports_another(source):
    here = room_of(source)
    assert not [f for f in imported_files(source) if ROOMS[room_of(f)][0] in CAMPAIGN_ROOMS and room_of(f) != here]


def test_no_files_import_each_other_in_a_circle():
    """Imports inside functions and for types count, too."""
    left = {source: set(imported_files(source)) for source in SOURCES}
    while ready := {source for source, needed in left.items() if not needed & left.keys()}:
        left = {source: needed for source, needed in left.items() if source not in ready}
    in_circles = {source: sorted(needed & left.keys()) for source, needed in left.items()}
    assert not in_circles


def test_every_room_has_files_and_the_top_of_the_orchestrator_few():
    assert {room_of(source) for source in SOURCES} == set(range(len(ROOMS)))
    assert sum(source.count("/") == 1 and source.startswith("orchestrator/") for source in SOURCES) <= FILES_AT_THE_TOP


def test_no_two_classes_have_the_same_name():
    found: dict[str, list[str]] = {}
    for source in SOURCES:
        for node in ast.walk(ast.parse((ROOT / source).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(source)
    assert not {name: sources for name, sources in found.items() if len(sources) > 1}


@pytest.mark.parametrize("source", SOURCES)
def test_no_layer_imports_a_higher_one(source):
    level = LAYERS.index(source.split("/")[0])
    higher = LAYERS[level + 1 :]
    assert not [name for name in imported(source) if name.split(".")[0] in higher]
    assert not [text for text in texts(source) if text.split(".")[0] in higher and " " not in text]


@pytest.mark.parametrize("source", SOURCES)
def test_heavy_dependencies_stay_at_home_and_pure_rooms_stay_pure(source):
    tops = {name.split(".")[0] for name in imported(source)}
    assert not [name for name in tops & HOMES.keys() if not source.startswith(HOMES[name])]
    assert not [name for prefix, names in FORBIDDEN.items() if source.startswith(prefix) for name in tops & names]
    if source.startswith("orchestrator/runtime/"):
        assert not [name for name in imported(source) if name.startswith("orchestrator.report")]


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "configs/quickstart.yaml"),
        ("plan", "configs/tiny.yaml"),
        ("plan", "configs/planted.yaml"),
        ("list", "methods"),
        ("--help",),
    ],
)
def test_fast_commands_import_neither_torch_nor_ray_nor_mlflow(arguments, tmp_path):
    code = (
        "import sys\nfrom orchestrator.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = [m for m in ('torch', 'ray', 'mlflow', 'transformers', 'sklearn') if m in sys.modules]\nsys.exit(f'imported {heavy}' if heavy else 0)"
    )
    overrides = ("--set", f"output={tmp_path}") if arguments[0] == "plan" else ()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
