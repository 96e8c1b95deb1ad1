"""What the demos share: they announce their steps, call the scripts, and say how much time is left."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from Utils.core.errors import UserError
from Utils.core.side_by_side import Job, available_threads, run_together
from Utils.core.step_progress import EpochLines, Progress, Step
from Utils.core.stopping import Stopped, stop_asked, stopping_on_signals


class DemoSteps:
    """The steps of a demo, one after another.

    Args:
        steps: all of them, in order.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.progress = Progress(steps)

    def begin(self, step: str, title: str) -> None:
        """Begin a step, and print what it does."""
        self.progress.begin(step)
        print(f"\n=== {title}\n    demo: {self.progress.line()}", flush=True)

    def call(self, script: str, arguments: Sequence[object]) -> None:
        """Run a script of the root in this process.

        Raises:
            UserError: it failed; it has said why.
            Stopped: a signal came.
        """
        check(script, importlib.import_module(script).main([str(argument) for argument in arguments]))

    def run_together(self, jobs: Sequence[Job]) -> None:
        """Run scripts side by side, and print their lines.

        Raises:
            UserError: one of them failed; it has said why.
            Stopped: a signal came.
        """

        def tell(line: str, job: Job) -> None:
            followed = self.progress.follow(line, job.step)
            print(f"{job.step}: {followed}" if job.step else followed, flush=True)

        check("training", run_together(jobs, available_threads(), tell))

    @contextmanager
    def following_epochs(self, step: str = "") -> Iterator[None]:
        """Let the training loop's log lines update the progress, and show it; ``step`` as in ``Progress.follow``."""
        # Not at the top: it imports torch, which the workers that make scenes do not need.
        from Utils.training.loop import logger as loop

        lines = EpochLines(self.progress, step)
        loop.addFilter(lines)
        try:
            yield
        finally:
            loop.removeFilter(lines)


def check(script: str, status: int) -> None:
    """End the demo where a script has failed, or a signal has come.

    Raises:
        UserError: the exit status is not 0.
        Stopped: a signal came.
    """
    if status:
        raise UserError(f"the demo stopped: {script} failed")
    if stop_asked():
        raise Stopped("the demo was stopped; it begins anew when it is started again")


def can_train_together() -> bool:
    """Whether there are cores for several processes; with a GPU there is only one."""
    import torch

    return available_threads() > 1 and not torch.accelerator.is_available()


def demo_script(arguments: Sequence[str] | None, module: str, description: str, run: Callable[[int], None]) -> int:
    """The command line of a demo, which takes a seed; returns its exit status.

    Args:
        arguments: those of the command line; None for the process's own.
        module: what stands behind ``python -m``.
        description: what the demo does.
        run: the demo, a function of the seed.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    # Read by OpenMP when torch is first imported, below.  Threads that spin long while they wait made an epoch four
    # times slower on two cores with other work; threads that never spin made it 1.6 times slower on idle ones.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Not at the top: the workers that make scenes import the demo's module, and start without torch.
    from Utils.core.command_line import run_script

    def work() -> None:
        with stopping_on_signals():
            run(given.seed)

    return run_script(work)
