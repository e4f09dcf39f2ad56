"""The rooms and what they must not import: layers, homes of heavy dependencies, purity, and no torch where answers must be fast."""

from __future__ import annotations

import ast
import subprocess
import sys
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
SOURCES = sorted(path.relative_to(ROOT).as_posix() for room in LAYERS for path in (ROOT / room).rglob("*.py"))


def imported(source: str) -> set[str]:
    """Full names of the modules a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / source).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{source}: relative import"
            found |= {node.module}
    return found


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
def test_no_room_imports_a_higher_one(source):
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
