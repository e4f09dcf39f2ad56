"""A command's exit code does not depend on what native libraries do when the process ends."""

import subprocess
import sys

import pytest

# libc calls `abort` among the destructors of native libraries, as Arrow does now and then when its threads still run.
ABORTING = """
import atexit, ctypes
libc = ctypes.CDLL(None)
libc.__cxa_atexit(libc.abort, None, None)
from orchestrator.terminal.process_exit import exit_with_code_of
"""


def run(program):
    return subprocess.run([sys.executable, "-c", ABORTING + program], capture_output=True, text=True, timeout=60)


def test_the_abort_is_real():
    assert run("import sys; sys.exit(0)").returncode == -6


@pytest.mark.parametrize("code", [0, 2, 3])
def test_the_code_of_the_command_is_the_code_of_the_process(code):
    assert run(f"exit_with_code_of(lambda: {code})").returncode == code


@pytest.mark.parametrize(("request_", "code"), [("None", 0), ("2", 2), ("'a message'", 1)])
def test_a_request_to_exit_keeps_its_code(request_, code):
    program = f"def command(): raise SystemExit({request_})\nexit_with_code_of(command)"
    assert run(program).returncode == code


def test_an_error_in_the_command_is_code_1_with_its_traceback():
    found = run("exit_with_code_of(lambda: 1 / 0)")
    assert found.returncode == 1
    assert "ZeroDivisionError" in found.stderr


def test_output_and_exit_handlers_are_not_lost():
    program = (
        "def command():\n"
        "    atexit.register(lambda: print('handler'))\n"
        "    print('x' * 100_000)\n"
        "    return 0\n"
        "exit_with_code_of(command)"
    )
    found = run(program)
    assert found.returncode == 0
    assert found.stdout == "x" * 100_000 + "\nhandler\n"


def test_the_command_line_ends_this_way():
    program = (
        "import sys\nsys.argv = ['refit', 'list', 'methods']\nfrom orchestrator.cli import command_line\ncommand_line()"
    )
    found = run(program)
    assert found.returncode == 0
    assert "tracin_we" in found.stdout
