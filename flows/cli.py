"""The command line. Results go to standard output, progress and errors to standard error.

Exit codes: 0 done; 1 an unexpected error; 2 the input is wrong and nothing was started; 3 the run ended without all that was
asked for; 4 a package is not what it says it is; 130 and 143 interrupted by SIGINT and SIGTERM.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import IntEnum
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import packhouse
from packhouse.errors import InputError, PackhouseError, VerificationFailed

app = typer.Typer(no_args_is_help=True, add_completion=False, help=packhouse.__doc__, pretty_exceptions_enable=False)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True, highlight=False)

HANDLER_PERIOD_S = 0.5
DEFAULT_CONFIG = Path("packhouse.yaml")
ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration file, YAML or JSON.")]
FlowRun = Callable[[], Awaitable[Any]]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


class ExitCode(IntEnum):
    """What the exit code of a command means."""

    OK = 0
    UNEXPECTED = 1
    BAD_INPUT = 2
    INCOMPLETE = 3
    NOT_VERIFIED = 4


@app.command()
def run(
    config: ConfigArgument = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's own log.")] = False,
) -> None:
    """Grade the candidates on every accelerator and package the winners."""
    with _explained(as_json):
        _run(config, as_json, verbose)


@app.command()
def plan(config: ConfigArgument = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Say what a run would do, and what it would take from earlier runs; nothing is started or written."""
    with _explained(as_json):
        from packhouse.config import load_config
        from packhouse.plan import prepare

        prepared = prepare(load_config(config))
        _quieten_prefect()
        from tasks.preview import preview

        shown = preview(prepared.plan)
        if as_json:
            _print_json({**asdict(shown), "config": prepared.plan.config.model_dump(mode="json")})
            return
        table = Table(title="Evaluations", title_justify="left")
        for heading in ("candidate", "accelerator", "state"):
            table.add_column(heading)
        for evaluation in shown.evaluations:
            table.add_row(evaluation.candidate, evaluation.accelerator, "cached" if evaluation.is_cached else "to do")
        out.print(table)
        for timing in shown.timings:
            who = f"{len(timing.candidates)} candidates" if timing.candidates else "the candidates that reach the other goals"
            state = {True: "cached", False: "to do", None: "after evaluation"}[timing.is_cached]
            out.print(f"timing on {timing.accelerator} ({state}): {who}, together")
        for package in shown.packages:
            state = {True: "cached", False: "to do", None: "after ranking"}[package.is_cached]
            out.print(f"{package.type} ({state}): {package.what}")
            for call in package.remote_calls:
                out.print(f"    {call}", markup=False, highlight=False)
            if package.caveat:
                out.print(f"    {package.caveat}", markup=False, highlight=False)
        for doubt in shown.doubtful_accelerators:
            out.print(doubt, markup=False)
        for merged in (candidate for candidate in prepared.plan.candidates if candidate.same_as):
            out.print(f"{merged.name} is the same as {', '.join(merged.same_as)} and is evaluated once")
        out.print(f"About {shown.estimate_s:.0f} s of work, and up to 20 s to start a temporary Prefect API where none runs.")


@app.command()
def rank(
    release: Annotated[Path, typer.Argument(help="release.json, or the output folder that has it.")] = Path("packages"),
    as_json: JsonOption = False,
) -> None:
    """Print the ranking of an earlier run."""
    with _explained(as_json):
        from packhouse.release import read_release
        from packhouse.report.tables import ranking_rows

        stored = read_release(release)
        if as_json:
            rankings = {"overall": stored.job.overall, **stored.job.by_accelerator}
            _print_json({name: ranking_rows(stored.job, ranking) for name, ranking in rankings.items()})
        else:
            _print_ranking(stored)


@app.command()
def register(
    release: Annotated[Path, typer.Argument(help="release.json, or the output folder that has it.")],
    kind: Annotated[str, typer.Option("--type", help="Packaging type, such as AzureMLModels.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="Take the packaging from this configuration, not from the release.")
    ] = None,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's own log.")] = False,
) -> None:
    """Register the packages of an earlier run that are of a type; what was made and validated then is not made again."""
    with _explained(as_json):
        from packhouse.config import load_config
        from packhouse.release import RELEASE_NAME, Release, read_release

        stored = read_release(release)
        record = (release / RELEASE_NAME if release.is_dir() else release).absolute()
        given = load_config(config) if config else None
        settings = (
            [item.model_dump(mode="json") for item in given.packaging]
            if given
            else [item.settings for item in stored.deliveries if item.settings]
        )
        chosen = [item for item in settings if item["type"].lower() == kind.lower()]
        if not chosen:
            there = ", ".join(sorted({item["type"] for item in settings})) or "none"
            where = f"--type = {kind}"
            raise InputError.at(where, f"is no packaging of {config or release}", f"use one of {there}, or give --config")

        def registering() -> FlowRun:
            from flows.register_release import register_release

            return partial(register_release, record, chosen, given and given.signing, return_state=True)

        message, updated = _ended(registering, verbose)
        if not isinstance(updated, Release):
            raise updated if isinstance(updated, PackhouseError) else PackhouseError(message or "the run failed")
        deliveries = [item for item in updated.deliveries if item.settings in chosen]
        if as_json:
            _print_json([item.model_dump(mode="json") for item in deliveries])
        for item in deliveries if not as_json else ():
            for place in item.registration.places if item.registration else ():
                out.print(f"{item.type}: {place}", highlight=False, markup=False)
            if item.caveat:
                out.print(f"{item.type}: {item.name} is {item.caveat}", highlight=False, markup=False)
        if message and any(item.failure for item in deliveries):
            err.print(f"[red]{escape(message)}[/]")
            raise typer.Exit(ExitCode.INCOMPLETE)


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file instead.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the JSON schema of the configuration."""
    with _explained(as_json):
        from packhouse.config.schema import schema_text

        if output:
            try:
                output.write_text(schema_text(), encoding="utf-8")
            except OSError as error:
                raise InputError.at(
                    f"--output = {output}", f"cannot be written ({error.strerror})", "choose another"
                ) from error
        else:
            sys.stdout.write(schema_text())


@app.command()
def verify(
    package: Annotated[
        Path, typer.Argument(help="A package: a ZIP archive, a folder, or whatever has its provenance beside it.")
    ],
    keys: Annotated[
        list[Path] | None, typer.Option("--key", help="Trusted public key, PEM; one of those given must have signed.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every digest in a package and run every model in it; with --key, also who has signed it."""
    with _explained(as_json):
        from packhouse.provenance.keys import read_verifying_key
        from packhouse.provenance.signing import verify_beside
        from packhouse.verification import is_bare, verify_package

        trusted = [read_verifying_key(key, f"--key = {key}") for key in keys or ()]
        proven = verify_beside(package.resolve(), trusted)
        verified = None if proven and is_bare(package) else verify_package(package)
        if as_json:
            about = proven and {**proven.statement.model_dump(mode="json", by_alias=True), "signed_by": proven.signed_by}
            _print_json({**(verified.model_dump(mode="json") if verified else {}), "provenance": about})
            return
        for model in verified.models if verified else ():
            out.print(f"{model.model_path}: {model.outcome}")
        if verified:
            out.print(f"{package}: {verified.files} files are what the manifest says")
        if proven:
            who = f"signed by the key {', '.join(proven.signed_by)}" if trusted else "not checked for a signature; give --key"
            out.print(f"{package}: is what its provenance says, {who}")


@app.command()
def sign(
    package: Annotated[Path, typer.Argument(help="A published package: a file or a folder.")],
    key: Annotated[
        Path,
        typer.Option(
            "--key", help="Private key, Ed25519 or ECDSA P-256, PEM; its password, if any, in PACKHOUSE_KEY_PASSWORD."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Sign a package: its provenance if that lies beside it, else a statement of its files only."""
    with _explained(as_json):
        from packhouse.provenance.keys import read_signing_key
        from packhouse.provenance.signing import sign_package
        from packhouse.provenance.statement import FILES_ONLY

        signing_key = read_signing_key(key, f"--key = {key}")
        envelope, statement = sign_package(package.resolve(), signing_key)
        keyid = signing_key.verifying_key.keyid
        if as_json:
            _print_json({"envelope": str(envelope), "keyid": keyid, "predicate_type": statement.predicate_type})
            return
        out.print(f"{envelope}: signed with the key {keyid}")
        if statement.predicate_type == FILES_ONLY:
            out.print(f"there is no provenance beside {package}, so the signature says only which files it has")


@app.command()
def selftest(
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to go on, at least.")] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Check that timing on this machine can be relied on: equal models must tie, and a slower one must not win."""
    with _explained(as_json):
        from packhouse.selftest import self_test

        with err.status("timing …") as status:
            found = self_test(seconds, lambda text: status.update(f"timing … {text}"))
        if as_json:
            _print_json({**found.model_dump(mode="json"), "is_passed": found.is_passed})
        else:
            table = Table(title=f"{found.duration_s:.0f} s, {found.scheduler}, {found.pinned}", title_justify="left")
            for heading in ("pair", "right", "tied", "undecided", "wrong"):
                table.add_column(heading)
            for name, counts in (("two copies of a model", found.identical), ("a model and a 12 % longer one", found.slower)):
                table.add_row(name, *(str(counts.get(outcome, 0)) for outcome in ("right", "tied", "undecided", "wrong")))
            out.print(table)
            out.print("passed" if found.is_passed else "[red]times cannot be relied on here; look for what else runs[/]")
        if not found.is_passed:
            raise typer.Exit(ExitCode.INCOMPLETE)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to make the example in.")] = Path("packhouse-demo"),
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's own log.")] = False,
) -> None:
    """Train a family of digit classifiers on real data, grade them, and package them."""
    with _explained(as_json):
        from packhouse.demo import make_demo

        err.print("training digit classifiers on scikit-learn's digits …")
        _run(make_demo(folder, err.print), as_json, verbose)


def main() -> None:
    """Run the command line."""
    app()


def _run(path: Path, as_json: bool, verbose: bool) -> None:
    from packhouse.config import load_config
    from packhouse.plan import prepare
    from packhouse.release import Release

    config = load_config(path)
    prepare(config)

    def packaging() -> FlowRun:
        from flows.package_models import package_models

        return partial(package_models, config, return_state=True)

    message, release = _ended(packaging, verbose)
    if isinstance(release, PackhouseError):
        raise release
    if not isinstance(release, Release):
        raise PackhouseError(message or "the run failed; --verbose shows Prefect's log")
    if as_json:
        _print_json(release.model_dump(mode="json"))
    else:
        _print_ranking(release)
        for delivery in release.delivered:
            caveat = f", {delivery.caveat}" if delivery.caveat else ""
            out.print(f"{delivery.type}: {config.output_dir / delivery.name}{caveat}", markup=False)
        out.print(f"Report: {config.output_dir / 'report.html'}")
    if not release.is_complete:
        err.print(f"[red]{escape(release.verdict)}[/]")
        raise typer.Exit(ExitCode.INCOMPLETE)


def _ended(load: Callable[[], FlowRun], verbose: bool) -> tuple[str | None, Any]:
    """Run a flow on the Prefect API that is there, or a temporary one; return its final message and its result.

    It is loaded before progress is shown, since Prefect sets up its logging anew with the first flow that is imported.
    """
    _quieten_prefect(verbose)
    _end_on_signals()
    from flows.local_api import prefect_api
    from flows.progress import shown_progress

    async def watched(flow_run: FlowRun) -> tuple[str | None, Any]:
        watch = asyncio.create_task(_keep_ending_on_signals())
        state = await flow_run()
        watch.cancel()
        return state.message, await state.aresult(raise_on_failure=False)

    with prefect_api(lambda text: err.print(f"[dim]{text}[/]")):
        flow_run = load()
        with shown_progress(err):
            return asyncio.run(watched(flow_run))


def _end_on_signals() -> None:
    """Make SIGINT and SIGTERM end the process at once: all that is visible is complete, and what is finished is kept.

    An orderly end would wait for the threads that wait for the workers. Workers and a temporary API die with this process.
    """

    def end(number: int, _: FrameType | None) -> None:
        err.show_cursor()
        err.print("stopped; what is finished is kept, and the next run takes it from the result storage")
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


async def _keep_ending_on_signals() -> None:
    """Put our handlers back in place again and again: Prefect sets its own whenever a flow begins."""
    while True:
        _end_on_signals()
        await asyncio.sleep(HANDLER_PERIOD_S)


def _print_ranking(release: Any) -> None:
    from packhouse.report.tables import by_priority, heading, ranking_rows

    ranked_by = [metric for metric in by_priority(release.job.metrics) if metric.priority > 0]
    columns = ["rank", "candidate", *(heading(metric) for metric in ranked_by)]
    for spec, ranking in release.job.by_accelerator.items():
        rows = ranking_rows(release.job, ranking)
        table = Table(title=f"Ranking on {spec}", title_justify="left")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(escape(str(row[column])) for column in columns))
        out.print(table)
        for row in rows:
            out.print(f"[bold]{row['rank']}[/] {escape(row['candidate'])}: {escape(row['why'])}", highlight=False)
        out.print()


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


@contextmanager
def _explained(as_json: bool) -> Iterator[None]:
    """Turn what Packhouse raises into a message on standard error, JSON if asked for, and an exit code."""
    codes: dict[type[PackhouseError], ExitCode] = {
        InputError: ExitCode.BAD_INPUT,
        VerificationFailed: ExitCode.NOT_VERIFIED,
    }
    try:
        yield
    except PackhouseError as error:
        code = codes.get(type(error), ExitCode.UNEXPECTED)
        if as_json:
            problems = [vars(problem) for problem in getattr(error, "problems", ())]
            _print_json({"error": type(error).__name__, "message": str(error), "problems": problems})
        for line in str(error).splitlines():
            err.print(f"[red]error:[/] {escape(line)}")
        raise typer.Exit(code) from error


def _quieten_prefect(verbose: bool = False) -> None:
    """Keep Prefect's log off the console, where progress is shown instead; the API gets it all the same."""
    defaults = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    if not verbose:
        defaults["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    main()
