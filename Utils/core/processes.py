"""The processes of one launch: which one writes, which part each does, and what all of them must know.

``accelerate launch`` and ``torchrun`` start the same script several times, and accelerate connects the processes here.
With one process, which is the ordinary case, no function below communicates, and most do not import torch, so that a
command that only answers a question does so at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from accelerate import PartialState
    from tqdm import tqdm

T = TypeVar("T")
ErrorT = TypeVar("ErrorT", bound=Exception)

# While one process checks the tiles of a large dataset, the others wait; the launcher notices one that has died.
_LONGEST_WAIT = timedelta(hours=24)
_NOTHING = object()


def launch() -> PartialState:
    """This process's place in the launch: device, number, count of processes; connects them on the first call."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # Without a GPU, accelerate looks for other processes only where it is told to use the CPU.
    use_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=use_cpu, timeout=_LONGEST_WAIT) if is_launched() else PartialState(cpu=use_cpu)


def is_launched() -> bool:
    """Whether a launcher started several processes; known before they are connected."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """Whether this process writes what is written only once; known before the processes are connected."""
    return not is_launched() or int(os.environ.get("RANK", "0")) == 0


def _is_alone() -> bool:
    """Whether there is no other process to wait for."""
    return not is_launched() or launch().num_processes == 1


def disconnect() -> None:
    """End the connection to the other processes, if there is one."""
    if not is_launched():
        return
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def on_main(work: Callable[[], T]) -> T:
    """Do something in the main process alone; every process gets the result, or raises the error."""
    if _is_alone():
        return work()
    from accelerate.utils import broadcast_object_list

    outcome: list[_Outcome[T] | None] = [_try(work) if launch().is_main_process else None]
    (shared,) = broadcast_object_list(outcome, from_process=0)
    assert shared is not None
    return shared.result()


def everywhere(work: Callable[[], T]) -> T:
    """Do something in every process; an error in one of them is raised in all."""
    if _is_alone():
        return work()
    from accelerate.utils import gather_object

    own: _Outcome[T] = _try(work)
    for failure in gather_object([own.failure]):
        if failure is not None:
            raise agreed(failure)
    return own.result()


@dataclass(frozen=True)
class _Outcome(Generic[T]):
    """The outcome of some work: a value or an error."""

    value: T | None = None
    failure: Exception | None = None

    def result(self) -> T:
        if self.failure is not None:
            raise agreed(self.failure)
        return self.value  # type: ignore[return-value]


def _try(work: Callable[[], T]) -> _Outcome[T]:
    try:
        return _Outcome(value=work())
    except Exception as error:
        return _Outcome(failure=error)


def agreed(error: ErrorT) -> ErrorT:
    """Mark an error that every process of the launch raises, so that the main process alone prints it."""
    error.told_elsewhere = not is_main()  # type: ignore[attr-defined]
    return error


def is_agreed(error: Exception) -> bool:
    """Whether every process of the launch raises an error."""
    return hasattr(error, "told_elsewhere")


def gather(items: Sequence[T]) -> list[T]:
    """The items of all processes, one process after another; every process gets all of them."""
    if launch().num_processes == 1:
        return list(items)
    from accelerate.utils import gather_object

    gathered: list[T] = gather_object(list(items))
    return gathered


def gather_in_turn(items: Sequence[T]) -> list[T]:
    """All items in order; process r of n gives those numbered r, r + n, r + 2 n, ..., and every process gets all."""
    if launch().num_processes == 1:
        return list(items)
    from accelerate.utils import gather_object

    shares = gather_object([list(items)])
    return [item for item in chain.from_iterable(zip_longest(*shares, fillvalue=_NOTHING)) if item is not _NOTHING]


def share(items: Sequence[T]) -> list[T]:
    """This process's part of some items, such that ``gather_in_turn`` puts the parts together."""
    return list(items[launch().process_index :: launch().num_processes])


def add_up(values: Sequence[float]) -> list[float]:
    """The sums, over the processes, of some numbers."""
    if launch().num_processes == 1:
        return list(values)
    import torch

    # fp64, but for devices without it; sums of small integers are exact in both.
    dtype = torch.float32 if launch().device.type == "mps" else torch.float64
    tensor = torch.tensor(values, dtype=dtype, device=launch().device)
    torch.distributed.all_reduce(tensor)
    return tensor.tolist()


def tell(text: object) -> None:
    """Print something, once."""
    if is_main():
        print(text, flush=True)


def progress_bar(*arguments: Any, **keywords: Any) -> tqdm:
    """A progress bar of tqdm, shown in the main process and only on a terminal."""
    from tqdm import tqdm

    return tqdm(*arguments, leave=False, disable=None if is_main() else True, **keywords)
