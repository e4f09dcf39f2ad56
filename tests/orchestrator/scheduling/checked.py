"""The real scheduler, whose invariants are asserted after every event, and short names for events."""

from orchestrator.records import Outcome
from orchestrator.scheduling.events import Completed, Failed, Tick, WorkerJoined
from orchestrator.scheduling.scheduler import Scheduler
from tests.orchestrator.scheduling.invariants import check_invariants


class Checked(Scheduler):
    def handle(self, event):
        instructions = super().handle(event)
        check_invariants(self)
        return instructions


def with_workers(order, *workers, **options):
    """Return a scheduler whose workers have joined; a worker is given by its name, or by (name, devices)."""
    scheduler = Checked(order, **options)
    scheduler.handle(Tick(0.0))
    for worker in workers:
        name, devices = (worker, ()) if isinstance(worker, str) else worker
        scheduler.handle(WorkerJoined(name, devices))
    return scheduler


def done(worker, spec_id, status="ok", seconds=0.0):
    return Completed(worker, Outcome(spec_id, status, seconds=seconds))


def out_of_memory(worker, spec_id):
    return Failed(worker, spec_id, "out_of_memory", "CUDA out of memory")


def of_kind(instructions, *kinds):
    """Return the instructions of these kinds, without the others, such as the publishing of parts."""
    return [instruction for instruction in instructions if isinstance(instruction, kinds)]
