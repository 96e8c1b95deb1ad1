"""One case: what its process does from beginning to end."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.inference import measure_growth, measure_inference
from benchmarks.loss import measure_loss
from benchmarks.measuring import Memory
from benchmarks.models.depth import FRAMES
from benchmarks.models.ours import OURS
from benchmarks.models.peers import PEERS
from benchmarks.models.sizes import SIZES
from benchmarks.models.subject import Subject
from benchmarks.plan import Case
from benchmarks.roofline import measure_rates
from benchmarks.training import measure_training
from Utils.core.device import keep_freed_memory

# Imported by the process that all cases are forked from, so that no case waits for them.
PRELOADED = (
    "benchmarks.case",
    "diffusers.pipelines.marigold.pipeline_marigold_depth",
    "transformers.models.bit.modeling_bit",
    "transformers.models.depth_anything.modeling_depth_anything",
    "transformers.models.dinov2.modeling_dinov2",
    "transformers.models.dpt.modeling_dpt",
    "transformers.models.glpn.modeling_glpn",
)


def run(text: str, lines: Path, errors: Path) -> None:
    """Measure a case.

    Args:
        text: the case, JSON.
        lines: gets a line of JSON a row, as soon as it is known.
        errors: gets what this process and its libraries say.
    """
    with errors.open("w", encoding="utf-8") as stream:
        for standard in (1, 2):
            os.dup2(stream.fileno(), standard)
        keep_freed_memory()  # as the scripts do; peers have the advantage as well
        try:
            with lines.open("w", encoding="utf-8") as target:
                for row in measure(Case.model_validate_json(text)):
                    target.write(json.dumps(row) + "\n")
                    target.flush()
        except Exception:
            traceback.print_exc(file=stream)
            stream.flush()
            sys.exit(1)


def measure(case: Case) -> Iterator[dict[str, Any]]:
    """The rows of a case, each as soon as it is known."""
    if case.kind == "rates":
        yield from measure_rates(case)
    elif case.kind == "loss":
        yield measure_loss(case.size, case.batches[0], min(case.effort.least + 1, 3))
    elif case.kind == "training":
        yield from measure_training(case, Memory(torch.device(case.device)))
    else:
        memory, subject = _build(case)
        yield from (measure_growth if case.kind == "growth" else measure_inference)(case, subject, memory)


def _build(case: Case) -> tuple[Memory, Subject]:
    """The meter of this process's memory, set before there is a model, and the model."""
    torch.manual_seed(0)
    device = torch.device(case.device)
    memory = Memory(device)
    if case.frame is None:
        subject = (OURS | PEERS)[case.subject](SIZES[case.scale], case.size).to(device)
    else:
        subject = FRAMES[case.subject](SIZES[case.scale], case.frame).to(device)
    subject.switch(replace(case.switches, compile=False))  # compiled after its work was counted
    return memory, subject
