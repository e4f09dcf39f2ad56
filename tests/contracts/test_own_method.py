"""The method that the README shows passes the contract suite of methods once a registry line names it: no test code is needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REGISTERED = """
from influence.registry import METHODS
from tasks.registry import Entry

METHODS.extend({"text_length": Entry("length_influence:TextLength", "the README's example")})
"""


def test_the_method_of_the_readme_passes_the_contract_suite(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    module = next(block for block in blocks if "class TextLength" in block)
    assert len(module.splitlines()) <= 30
    (tmp_path / "length_influence.py").write_text(module)
    (tmp_path / "register_text_length.py").write_text(REGISTERED)
    options = ["-p", "register_text_length", "-q", "-rA", "-p", "no:cacheprovider", "-k", "text_length"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/contracts/test_method_contract.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") >= 7, done.stdout
