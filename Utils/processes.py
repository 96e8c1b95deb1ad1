"""The processes of one launch: who writes, who does which part, what all of them must know.

``accelerate launch`` and ``torchrun`` start the same script several times; accelerate connects the processes, here.
One process is the ordinary case: everything below then does nothing, or what its name says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import chain, zip_longest
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env
from tqdm import tqdm

from Utils.errors import UserError

T = TypeVar("T")

# While one process checks the tiles of a large dataset, the others wait; one that died is noticed by the launcher.
_LONGEST_WAIT = timedelta(hours=24)
_NOTHING = object()


def launch() -> PartialState:
    """This process's place in the launch: device, number, count of processes; connects them on the first call."""
    # Without a GPU, accelerate looks for other processes only where it is told to use the CPU.
    use_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=use_cpu, timeout=_LONGEST_WAIT) if is_launched() else PartialState(cpu=use_cpu)


def is_launched() -> bool:
    """Whether a launcher started several processes; says so before they are connected."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """Whether this process is the one that writes what is written once; says so before they are connected."""
    return not is_launched() or int(os.environ.get("RANK", "0")) == 0


def disconnect() -> None:
    """Take leave of the other processes, where they were connected."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def on_main(work: Callable[[], T]) -> T:
    """Do something in the main process alone; every process gets its result, or its ``UserError``."""
    if launch().num_processes == 1:
        return work()
    outcome: list[T | UserError | None] = [None]
    if launch().is_main_process:
        try:
            outcome = [work()]
        except UserError as error:
            outcome = [error]
    result = broadcast_object_list(outcome, from_process=0)[0]
    if isinstance(result, UserError):
        raise agreed(result)
    return result


def everywhere(work: Callable[[], T]) -> T:
    """Do something in every process that may fail in one: a ``UserError`` in any of them is raised in all."""
    if launch().num_processes == 1:
        return work()
    result, failure = None, None
    try:
        result = work()
    except UserError as error:
        failure = error
    failures = [error for error in gather_object([failure]) if error is not None]
    if failures:
        raise agreed(failures[0])
    return result  # type: ignore[return-value]


def agreed(error: UserError) -> UserError:
    """An error that every process of the launch raises: the main process tells it."""
    error.told_elsewhere = not is_main()
    return error


def gather_in_turn(items: Sequence[T]) -> list[T]:
    """All items, in order, of which process r of n has those numbered r, r + n, r + 2 n, ...; in every process."""
    if launch().num_processes == 1:
        return list(items)
    shares = gather_object([list(items)])
    return [item for item in chain.from_iterable(zip_longest(*shares, fillvalue=_NOTHING)) if item is not _NOTHING]


def share(items: Sequence[T]) -> list[T]:
    """This process's part of some items, such that ``gather_in_turn`` puts the parts together."""
    return list(items[launch().process_index :: launch().num_processes])


def add_up(values: Sequence[float]) -> list[float]:
    """The sums, over the processes, of some numbers."""
    if launch().num_processes == 1:
        return list(values)
    # fp64, but for devices without it; sums of small integers are exact in both.
    dtype = torch.float32 if launch().device.type == "mps" else torch.float64
    tensor = torch.tensor(values, dtype=dtype, device=launch().device)
    torch.distributed.all_reduce(tensor)
    return tensor.tolist()


def progress_bar(*arguments: Any, **keywords: Any) -> tqdm:
    """Tqdm's bar, in the main process and on a terminal."""
    return tqdm(*arguments, leave=False, disable=None if is_main() else True, **keywords)


def wait_for_all() -> None:
    """Go on when every process has come here."""
    launch().wait_for_everyone()
