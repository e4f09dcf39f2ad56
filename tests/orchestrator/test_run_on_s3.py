"""A whole campaign whose store is a bucket: the same tables, from any machine, whatever happens to driver and store on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from benchmarks.harness import ROOT, kill, start, wait_until
from orchestrator import api
from orchestrator.cli import main
from orchestrator.experiment.run_dir import existing
from orchestrator.inspection.status import status
from orchestrator.scheduling.policies import Backoff
from orchestrator.storage import object_blobs
from orchestrator.storage.blobs import BlobStore
from tests.orchestrator.gated_campaign import GATED, open_gate, quiet_tables, repeated
from tests.orchestrator.gated_recipe import FOLDER, FREE, trainings
from tests.orchestrator.tiny_campaign import committed, result_bytes, write_config
from tests.s3_server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
PATIENCE_S = 120


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server().start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(ROOT))
        yield server
    server.stop()


class Campaign:
    """One campaign with a bucket of its own, and a gate half-way."""

    def __init__(self, server: S3Server, folder: Path, on_machine: Callable[[str], None]):
        self.server, self.gate, self.on_machine = server, folder, on_machine
        self.output = f"s3://{server.make_bucket()}/campaigns"
        self.path = write_config(folder, {**GATED, "output": self.output})
        self.config = api.load_config(self.path)
        self.uri = f"{self.output}/{api.open_pipeline(self.config, address='local').experiment.run_name}"

    def command(self) -> list[str]:
        return ["run", str(self.path), "--yes", "--address", "local"]

    @property
    def blobs(self) -> BlobStore:
        return api.open_pipeline(self.config, address="local").store.blobs

    def keys(self, part: str) -> list[str]:
        return [key for key in self.blobs.list("") if part in key]

    def forget_lease(self) -> None:
        for key in self.keys("/lease.json"):
            self.blobs.delete(key)

    def tables(self) -> dict[str, bytes]:
        return result_bytes(existing(self.uri).path)

    @property
    def is_half_way(self) -> bool:
        """Something is finished, and the next training waits."""
        return len(trainings(self.gate)) > FREE and bool(self.keys("/part-"))

    def open(self) -> None:
        open_gate(self.gate)


@pytest.fixture
def campaign(server, tmp_path, monkeypatch) -> Campaign:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    on_machine = lambda name: monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))  # noqa: E731
    on_machine("one")
    return Campaign(server, tmp_path, on_machine)


def test_every_command_works_on_a_bucket_and_from_another_machine(campaign, capsys):
    campaign.open()
    assert main(["plan", str(campaign.path)]) == 0
    assert campaign.keys("") == [], "a dry run writes nothing"
    assert main(campaign.command()) == 0
    assert campaign.tables() == quiet_tables()
    assert main(["status", campaign.uri]) == 0
    campaign.on_machine("two")
    assert main(["status", campaign.uri]) == 0
    assert capsys.readouterr().out.count(": complete") == 2
    assert main(["verify", campaign.uri, "--rerun", "1"]) == 0
    assert main(["report", campaign.uri]) == 0
    assert campaign.tables() == quiet_tables()
    n_trained = len(trainings(campaign.gate))
    assert main(campaign.command()) == 0
    assert "retrained 0" in capsys.readouterr().out
    assert len(trainings(campaign.gate)) == n_trained
    assert campaign.keys("report.html") == [campaign.uri.removeprefix(campaign.output + "/") + "/report.html"]


def test_a_driver_is_alone_until_it_is_killed_and_another_machine_goes_on(campaign, capsys):
    """While it lives, everybody else is told who it is and exits 3."""
    log = campaign.gate / "first.log"
    first = start(*campaign.command(), log=log)
    wait_until(lambda: campaign.is_half_way, PATIENCE_S, first)
    assert first.poll() is None, log.read_text()
    campaign.on_machine("two")
    assert main(campaign.command()) == 3
    assert f"is in use by process {first.pid} on host " in capsys.readouterr().err.splitlines()[-1]
    assert main(["status", campaign.uri]) == 0
    assert ": retraining" in capsys.readouterr().out
    begun, finished = set(trainings(campaign.gate)), committed(campaign.config)
    kill(first.pid)
    first.wait()
    campaign.open()
    assert main(campaign.command()) == 0
    assert campaign.tables() == quiet_tables()
    assert len(repeated(campaign.gate)) <= len(begun) - len(finished)
    assert finished.items() <= committed(campaign.config).items(), "what was finished is as it was"


def beside(campaign: Campaign, body: Callable[[], None]) -> Thread:
    """Run `body` in a thread once the campaign, run in this one, is half-way; then open the gate."""

    def go() -> None:
        try:
            wait_until(lambda: campaign.is_half_way, PATIENCE_S)
            body()
        finally:
            campaign.open()

    thread = Thread(target=go)
    thread.start()
    return thread


def test_a_store_that_is_away_for_a_while_costs_nothing_but_time(campaign):
    def away() -> None:
        log = next(campaign.gate.glob("one/refit/*/*/refit.log"))
        campaign.server.stop()
        campaign.open()
        try:
            wait_until(lambda: "; next attempt in " in log.read_text(), PATIENCE_S)
        finally:
            campaign.server.start()

    thread = beside(campaign, away)
    assert main(campaign.command()) == 0
    thread.join()
    assert campaign.tables() == quiet_tables()
    assert not repeated(campaign.gate)


def test_a_store_that_is_away_for_good_ends_the_run_with_one_line_and_exit_3(campaign, capsys, monkeypatch):
    """Not 1: nothing is wrong with what is stored, and the same command goes on."""
    monkeypatch.setattr(object_blobs, "RETRIES", {"max_retries": 0})
    monkeypatch.setattr(Backoff, "delay_s", lambda self, n_failures: 0.01 if n_failures < 3 else None)
    thread = beside(campaign, campaign.server.stop)
    try:
        code = main(campaign.command())
    finally:
        thread.join()
        campaign.server.start()
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("refit: ledger: 3 writes in a row failed, the last with StoreAwayError: ")
    assert "cannot be reached" in last
    assert code == 3
    finished = committed(campaign.config)
    assert finished
    campaign.forget_lease()  # it could not be given back, and its process, this one, lives on
    assert main(campaign.command()) == 0
    assert campaign.tables() == quiet_tables()
    assert finished.items() <= committed(campaign.config).items()


def refuses(server: S3Server, part: str, n: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the server fail at the first `n` writes of keys with `part` in them; the keys, as they come."""
    refused: list[str] = []

    def before(environ: dict[str, Any]) -> None:
        if environ["REQUEST_METHOD"] == "PUT" and part in environ["PATH_INFO"] and len(refused) < n:
            refused.append(environ["PATH_INFO"])
            raise ConnectionError("the server fails")

    monkeypatch.setattr(server, "before", before)
    monkeypatch.setattr(object_blobs, "RETRIES", {"max_retries": 0})
    return refused


def test_a_checkpoint_that_the_store_refuses_for_a_while_costs_no_attempt(campaign, monkeypatch):
    """One retry is allowed, which two refusals would use up: an outage is no fault of the retrain."""
    refused = refuses(campaign.server, "/checkpoints/", 2, monkeypatch)
    campaign.open()
    assert main(campaign.command()) == 0
    assert len(refused) == 2
    assert campaign.tables() == quiet_tables()
    assert not repeated(campaign.gate)
    assert status(campaign.uri).retries == 0


def test_a_run_whose_report_does_not_reach_the_store_says_so(campaign, capsys, monkeypatch):
    """Everything in it can be made again from the ledger: the run is complete."""
    refused = refuses(campaign.server, "/report.html", 1, monkeypatch)
    campaign.open()
    assert main(campaign.command()) == 0
    assert len(refused) == 1
    assert "warning: the run directory could not be uploaded (" in capsys.readouterr().err
    assert not campaign.keys("/report.html")
    assert main(campaign.command()) == 0
    assert campaign.keys("/report.html")
