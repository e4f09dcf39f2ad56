"""The command `refit`: parses the command line, calls the command, and reports errors as one line and an exit code."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from orchestrator.storage.refusals import StoreRefusesError, describe_os_error, is_permanent
from orchestrator.terminal.process_exit import exit_with_code_of
from orchestrator.terminal.streams import have_readers, unbroken_streams
from tasks.errors import InputError, RefitError

if TYPE_CHECKING:
    from orchestrator.config.schema import LoadedConfig
    from orchestrator.stages.pipeline import Pipeline

EXIT_COMPLETE, EXIT_ERROR, EXIT_INPUT, EXIT_STOPPED, EXIT_QUARANTINED = range(5)
STAGES = ("train", "score", "diagnose", "plan", "retrain", "analyse")
LONGEST_LINE = 1200  # most characters of an error message
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
PATH_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP)  # the user has given a path that cannot exist
EXIT_CODES = (
    "exit codes: 0 complete, 1 error or verification mismatch, 2 invalid input, "
    "3 stopped early (the same command resumes), 4 complete with quarantined retrains"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    with unbroken_streams():
        return _outcome(options)


def _outcome(options: argparse.Namespace) -> int:
    try:
        return options.command(options)
    except InputError as error:
        return _fail(f"refit: {error}", EXIT_INPUT)
    except StoreRefusesError as error:
        return _refused(error)
    except RefitError as error:
        return _fail(f"refit: {error}", EXIT_STOPPED if error.is_resumable else EXIT_ERROR)
    except KeyboardInterrupt:
        return _fail("refit: interrupted; finished work is kept, and the same command resumes", EXIT_STOPPED)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in PATH_ERRORS:
            return _fail(f"refit: {error.filename}: {error.strerror}", EXIT_INPUT)
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            return _fail(
                f"refit: {error.filename or 'the disk'}: {error.strerror}; the same command resumes", EXIT_STOPPED
            )
        if isinstance(error, OSError) and is_permanent(error):
            return _refused(error)
        if os.environ.get("REFIT_TRACEBACK"):
            traceback.print_exc()
        return _fail(
            f"refit: internal error: {type(error).__name__}: {error} (set REFIT_TRACEBACK=1 for the traceback)",
            EXIT_ERROR,
        )


def _refused(error: OSError) -> int:
    """Report a wrong path or a missing permission, which the user must correct."""
    return _fail(
        f"refit: {describe_os_error(error)}; finished work is kept; correct this and repeat the command to continue",
        EXIT_INPUT,
    )


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    if len(line) > LONGEST_LINE:  # keep the place, at the beginning, and what is allowed, at the end
        line = f"{line[: LONGEST_LINE * 2 // 3]} ... {line[-LONGEST_LINE // 3 :]}"
    print(line, file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="refit",
        description="Tests influence methods: removes the examples, retrains, and measures the change of the predictions.",
        epilog=EXIT_CODES,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    run = _command(commands, "run", _run, "estimate, run, report; the same command resumes")
    _run_arguments(run)
    run.add_argument("--until", choices=STAGES, default="analyse", help="stop after this stage")
    text = "clusters of mislabeled training examples: run of a config whose campaign is mislabels"
    _run_arguments(_command(commands, "mislabels", _mislabels, text))
    plan = _command(commands, "plan", _plan, "dry run: cells, distinct retrains, retrains to do, time and cost")
    _config_arguments(plan)
    plan.add_argument("--json", action="store_true")
    text = "first train N (default 5) retrains of every class, keep them, and base the estimate on them"
    plan.add_argument("--pilot", nargs="?", const=5, type=int, metavar="N", help=text)
    _machine_arguments(plan)
    status = _command(
        commands,
        "status",
        _status,
        "progress and failures, or the story of a retrain (--spec), during a run or after it",
    )
    _run_dir_argument(status)
    status.add_argument("--watch", action="store_true", help="repeat every two seconds until complete")
    status.add_argument("--json", action="store_true")
    text = "show one retrain instead: its spec, its state and its events; the first digits of its id suffice"
    status.add_argument("--spec", metavar="ID", help=text)
    explain = _command(
        commands, "explain", _explain, "one query and its top examples, or the words that make the score of a pair"
    )
    _run_dir_argument(explain)
    explain.add_argument("--query", required=True, metavar="ID", help="a query of the run, by its id in the data")
    explain.add_argument("--train", metavar="ID", help="a training example: show the words that make its score")
    explain.add_argument("--method", metavar="LABEL", help="default: every method with scores")
    explain.add_argument("--json", action="store_true")
    _run_dir_argument(_command(commands, "report", _report, "write results/ and report.html from the ledger"))
    verify = _command(commands, "verify", _verify, "check digests and completeness, derive the tables again, compare")
    _run_dir_argument(verify)
    verify.add_argument(
        "--rerun", type=int, default=0, metavar="N", help="also retrain N random specs, score N random shards, compare"
    )
    _run_dir_argument(_command(commands, "sync", _sync, "rebuild the MLflow projection"))
    compared = _command(
        commands, "compare", _compare, "show LDS and AUC-DEL of the same methods and their rank agreement"
    )
    compared.add_argument(
        "run_dirs", nargs="+", metavar="run_dir", help="a deletion run and an lds run over the same task"
    )
    compared.add_argument("--json", action="store_true")
    listing = _command(commands, "list", _list, "list what is available")
    listing.add_argument("kind", choices=("methods", "diagnostics", "tasks", "recipes", "campaigns", "observers"))
    return parser


def _command(commands: argparse._SubParsersAction, name: str, function: Callable, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text, epilog=EXIT_CODES)
    parser.set_defaults(command=function)
    return parser


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _config_arguments(parser)
    _machine_arguments(parser)
    parser.add_argument("--retry-quarantined", action="store_true", help="repeat quarantined retrains")
    parser.add_argument("--yes", action="store_true", help="start without a question")


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="dotted.key=value", dest="overrides")
    parser.add_argument("--run-dir", help="another folder for the run directory; the store does not change")


def _machine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", help="'local': this process; 'auto' or host:port: a cluster; default: a local Ray")
    parser.add_argument("--max-gpu-hours", type=float, metavar="H", help="limit for all sessions, busy or idle nodes")
    parser.add_argument("--max-cost", type=float, metavar="C", help="the same in the currency of the config's prices")
    parser.add_argument("--deadline", metavar="T", help="a time (2026-12-01T08:00) or from now (90m, 2h30m, 1d)")
    parser.add_argument("--wait", action="store_true", help="wait while another driver holds the ledger's lease")


def _run_dir_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", help="a folder, or its s3:// or gs:// URI")


def _run(options: argparse.Namespace) -> int:
    from orchestrator import api

    config = api.load_config(options.config, options.overrides)
    api.limits_of(config, options.max_gpu_hours, options.max_cost, options.deadline)  # raises before any output
    is_nothing = _estimated(config, options)
    if not is_nothing:
        api.check_cluster(options.address)  # checked before torch is imported and data are prepared
    if not (options.yes or is_nothing or not _is_interactive()) and not _confirmed():
        return EXIT_STOPPED
    result = api.run(
        config,
        until=options.until,
        retry_quarantined=options.retry_quarantined,
        **_on_machines(options),
    )
    if result.results is not None:
        from orchestrator.terminal.results_table import most_moved_query, results_table

        print(results_table(result.results))
        print(f"\nreport    {result.run_dir / 'report.html'}")
        query = most_moved_query(result.results)
        if query:
            command = shlex.join(["refit", "explain", str(result.run_dir), "--query", query])
            print(f"next      {command}   shows its most influential examples")
    print(f"run       {result.run_dir}\nretrained {result.report.retrained} (attempts {result.report.attempts})")
    if result.uri:
        print(f"store     {result.uri}")
    if result.report.quarantined:
        print(
            f"quarantined {len(result.report.quarantined)}: {', '.join(sorted(result.report.quarantined))}",
            file=sys.stderr,
        )
    return result.exit_code


def _mislabels(options: argparse.Namespace) -> int:
    """Run a mislabels campaign to the end."""
    from orchestrator import api

    config = api.load_config(options.config, options.overrides)
    if config.settings.campaign != "mislabels":
        problem = f"{config.settings.campaign!r} has no mislabels; allowed: mislabels (refit run runs any campaign)"
        raise InputError(f"{config.where}: campaign", problem)
    options.until = "analyse"
    return _run(options)


def _estimated(config: LoadedConfig, options: argparse.Namespace) -> bool:
    """Print the estimate on stderr; return whether nothing is left to train.

    If the scores exist but a method ranks no example, no retrain can be planned. `run --until score` needs no plan and
    only repeats its warnings about the scores.
    """
    from orchestrator import api
    from orchestrator.campaigns.scored import UnrankedError

    try:
        estimate = api.plan(config, options.run_dir)
    except UnrankedError:
        if STAGES.index(options.until) > STAGES.index("diagnose"):
            raise
        return True
    print("\n".join(estimate.lines()), file=sys.stderr)
    return estimate.is_nothing


def _on_machines(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that `run` and a pilot share."""
    from orchestrator.terminal.progress import Progress

    names = ("run_dir", "address", "max_gpu_hours", "max_cost", "deadline", "wait")
    return {"progress": Progress(), **{name: getattr(options, name) for name in names}}


def _confirmed() -> bool:
    try:
        return input("start? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def _is_interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _plan(options: argparse.Namespace) -> int:
    from orchestrator import api

    config = api.load_config(options.config, options.overrides)
    if options.pilot is not None:
        if options.pilot < 1:
            raise InputError("--pilot", f"{options.pilot} is not a valid number of retrains; allowed: 1 or more")
        api.run(config, until="retrain", pilot=options.pilot, **_on_machines(options))
    estimate = api.plan(config, options.run_dir)
    print(json.dumps(estimate.json(), indent=2) if options.json else "\n".join(estimate.lines()))
    return EXIT_COMPLETE


def _status(options: argparse.Namespace) -> int:
    import time

    from orchestrator.inspection.status import StatusReader
    from orchestrator.storage.blobs import StoreAwayError

    if options.spec is not None:
        return _spec_status(options)
    reader = StatusReader(options.run_dir)
    while True:
        try:
            now = reader.now()
        except StoreAwayError as error:
            if not options.watch or not have_readers():
                raise
            print(f"refit: {error}", file=sys.stderr)
        else:
            print(json.dumps(now.json()) if options.json else "\n".join(now.lines()), flush=True)
            if not options.watch or now.stage == "complete" or not have_readers():
                return EXIT_QUARANTINED if now.complete and now.quarantined else EXIT_COMPLETE
        time.sleep(2)


def _spec_status(options: argparse.Namespace) -> int:
    from orchestrator.inspection.spec_story import spec_status

    if options.watch:
        raise InputError("--watch", "shows the progress of a whole run; leave it out with --spec")
    found = spec_status(options.run_dir, options.spec)
    print(json.dumps(found.json()) if options.json else "\n".join(found.lines()))
    return EXIT_COMPLETE


def _explain(options: argparse.Namespace) -> int:
    from orchestrator.api import open_run
    from orchestrator.inspection.explain import explain
    from orchestrator.terminal import explained

    found = explain(open_run(options.run_dir).pipeline(), options.query, options.train, options.method)
    if options.json:
        print(json.dumps(found.json(), indent=2, ensure_ascii=False))
        return EXIT_COMPLETE
    colour = explained.wants_colour(sys.stdout)
    lines = explained.lines(found.query, found.pairs, found.scored_on, colour)
    print("\n".join([*lines, *(f"note: {note}" for note in found.notes)]))
    return EXIT_COMPLETE


def _report(options: argparse.Namespace) -> int:
    from orchestrator.api import open_run
    from orchestrator.inspection.report_data import report_data
    from orchestrator.report.render import write_report

    pipeline = open_run(options.run_dir).pipeline()
    _note_store(pipeline)
    pipeline.write_results()
    print(write_report(report_data(pipeline), pipeline.run_dir.path))
    pipeline.mirror.publish()
    return EXIT_QUARANTINED if pipeline.report.quarantined else EXIT_COMPLETE


def _verify(options: argparse.Namespace) -> int:
    from orchestrator.api import open_run
    from orchestrator.inspection.verify import verify

    if options.rerun < 0:
        raise InputError("--rerun", f"{options.rerun} is not a valid number of retrains; allowed: 0 or more")
    found = verify(open_run(options.run_dir).pipeline(), options.rerun)
    for line in found.checked:
        print(f"checked  {line}")
    for problem in found.problems:
        print(f"MISMATCH {problem}")
    return EXIT_ERROR if found.problems else EXIT_COMPLETE


def _sync(options: argparse.Namespace) -> int:
    from orchestrator.api import open_run
    from orchestrator.inspection.projections import sync

    pipeline = open_run(options.run_dir).pipeline()
    _note_store(pipeline)
    result = sync(pipeline)
    print(f"MLflow: {result.created} runs created, {result.updated} updated")
    return EXIT_COMPLETE


def _compare(options: argparse.Namespace) -> int:
    from orchestrator.inspection.compare import compare

    found = compare(options.run_dirs)
    print(json.dumps(found.json(), indent=2) if options.json else "\n".join(found.lines()))
    return EXIT_COMPLETE


def _note_store(pipeline: Pipeline) -> None:
    """Print a note if the store that is read is not the one that the run was made in."""
    if note := pipeline.run_dir.store_note(pipeline.store.uri):
        print(f"note: {note}", file=sys.stderr)


def _list(options: argparse.Namespace) -> int:
    from influence.registry import DIAGNOSTICS, METHODS, OBSERVERS
    from orchestrator.registry import CAMPAIGNS
    from tasks.registry import RECIPES, TASKS

    registries = {registry.kind: registry for registry in (METHODS, DIAGNOSTICS, TASKS, RECIPES, CAMPAIGNS, OBSERVERS)}
    entries = registries[options.kind].entries()
    width = max(map(len, entries))
    for name, entry in entries.items():
        print(f"{name:<{width}}  {entry.summary}{'' if entry.paper == '-' else f'  [{entry.paper}]'}")
    return EXIT_COMPLETE


def command_line() -> NoReturn:
    """Run one command and end the process; the entry point of `refit`."""
    exit_with_code_of(main)


if __name__ == "__main__":
    command_line()
