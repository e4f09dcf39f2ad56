import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.runtime.stop import StopSignal, stop_on_signals

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

# Three quick retrains, then one that hangs; what the ledger got is printed, and the exit code is that of a stop. The row of
# the third retrain may be written only after the signal, because this thread trains and a write may still be running.
CAMPAIGN = """
import sys
from tiny_task import make_context, tiny_works
from orchestrator.runtime.driver import StopSignal, drive, stop_on_signals
from orchestrator.runtime.local import LocalBackend
from orchestrator.scheduling.scheduler import Scheduler

works = tiny_works(6)
fourth = list(works)[3]
class Announcing(LocalBackend):
    def submit(self, worker, work, attempt):
        if work.spec_id == fourth:
            print("three done", flush=True)
        super().submit(worker, work, attempt)
backend = Announcing(make_context(faults={fourth: "hang"}))
ledger = []
with stop_on_signals(StopSignal()) as stop:
    result = drive(Scheduler(list(works)), backend, ledger.extend, works, None, stop, code_version="test")
print(len(ledger), result.n_finished, result.stopped, result.failures, flush=True)
sys.exit(0 if result.complete else 3)
"""

# One retrain whose row never gets onto the disk, which is full from the start.
FULL_DISK = """
import sys
from tiny_task import make_context, tiny_works
from orchestrator.runtime.driver import LedgerUnwritableError, StopSignal, drive, stop_on_signals
from orchestrator.runtime.local import LocalBackend
from orchestrator.scheduling.policies import Backoff
from orchestrator.runtime.driver import DriveOptions
from orchestrator.scheduling.scheduler import Scheduler

works, tries = tiny_works(1), []
def publish(rows):
    tries.append(rows)
    if len(tries) == 1:
        print("full", flush=True)
    raise OSError(28, "No space left on device")
patience = DriveOptions(backoff=Backoff(first_s=200.0, longest_s=200.0))
with stop_on_signals(StopSignal()) as stop:
    try:
        drive(Scheduler(list(works)), LocalBackend(make_context()), publish, works, None, stop,
              code_version="test", options=patience)
    except LedgerUnwritableError as error:
        print(error, flush=True)
        sys.exit(3 if error.is_resumable else 1)
"""


def test_the_first_signal_asks_for_a_stop_and_the_second_interrupts():
    with stop_on_signals(StopSignal()) as stop:
        assert stop.reason is None
        signal.raise_signal(signal.SIGINT)
        assert stop.reason == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_sigterm_asks_for_a_stop_too():
    with stop_on_signals(StopSignal()) as stop:
        signal.raise_signal(signal.SIGTERM)
    assert stop.reason == "SIGTERM"


def test_the_handlers_of_before_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="boom"), stop_on_signals(StopSignal()):
        raise ValueError("boom")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_work_in_this_thread_is_interrupted_by_the_first_signal():
    with stop_on_signals(StopSignal()) as stop:
        with pytest.raises(KeyboardInterrupt), stop.interruptible(True):
            signal.raise_signal(signal.SIGINT)
        assert (stop.reason, stop.n_signals) == ("SIGINT", 1)


def test_the_first_reason_stays():
    stop = StopSignal()
    stop.request("budget")
    stop.request("deadline")
    assert stop.reason == "budget"


def test_outside_the_main_thread_handlers_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def run():
        with stop_on_signals(StopSignal()):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


@contextmanager
def running(program):
    """A process that runs `program` as a driver."""
    path = os.pathsep.join([str(HERE), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def campaign():
    with running(CAMPAIGN) as process:
        yield process


def test_ctrl_c_during_a_retrain_ends_the_campaign_cleanly(campaign):
    assert campaign.stdout.readline() == "three done\n"
    campaign.send_signal(signal.SIGINT)
    output, errors = campaign.communicate(timeout=60)
    assert (campaign.returncode, output, errors) == (3, "3 3 SIGINT {}\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_ledger_cannot_be_written_does_not_wait_for_the_next_try(number):
    """The next try is 200 seconds away; after the signal the write is tried for five seconds more, and given up."""
    with running(FULL_DISK) as process:
        assert process.stdout.readline() == "full\n"
        process.send_signal(number)
        output, errors = process.communicate(timeout=100)
    assert process.returncode == 3
    assert "stopped while 6 writes in a row failed" in output
    assert "1 finished retrains are not in the ledger and will be repeated" in output
    assert "Traceback" not in errors
