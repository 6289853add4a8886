"""Show on the terminal what the tasks of a run report in their logs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

RUN_LOGGERS = ("prefect.task_runs", "prefect.flow_runs")


class StepHandler(logging.Handler):
    """Takes log records that carry a `step`, and a `subject` where the step is one of several of the same thing."""

    def __init__(self, progress: Progress) -> None:
        """Show steps in `progress`."""
        super().__init__()
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Show the step of a record."""
        step, subject = getattr(record, "step", None), getattr(record, "subject", None)
        if not step:
            return
        text = escape(f"{subject}: {step}" if subject else step)
        if not subject or not self._progress.console.is_terminal:
            self._progress.console.print(text)
            return
        if subject not in self._tasks:
            self._tasks[subject] = self._progress.add_task(text, total=1)
        finished = step.startswith(("done", "failed"))
        self._progress.update(self._tasks[subject], description=text, completed=int(finished))


@contextmanager
def shown_progress(console: Console) -> Iterator[None]:
    """Show the steps of all tasks while the body runs."""
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        handler = StepHandler(progress)
        for name in RUN_LOGGERS:
            logging.getLogger(name).addHandler(handler)
        try:
            yield
        finally:
            for name in RUN_LOGGERS:
                logging.getLogger(name).removeHandler(handler)
