"""The machine that was measured on, in words that name neither it nor its user."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

_PACKAGES = ("torch", "diffusers", "timm", "transformers")


def describe_machine(device: str) -> dict[str, Any]:
    """Processor, memory, accelerator, system and versions."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    machine: dict[str, Any] = {
        "device": device,
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }
    if device == "cuda":
        about = torch.cuda.get_device_properties(0)
        machine["gpu"] = {
            "name": about.name,
            "memory_gib": round(about.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
            "tf32_matrix_products": torch.backends.cuda.matmul.allow_tf32,
        }
    return machine


def summarise_machine(machine: dict[str, Any]) -> str:
    """A line about the machine."""
    torch_version = machine["packages"]["torch"]
    processor = f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads"
    parts = [processor, f"{machine['memory_gib']} GiB", f"torch {torch_version}"]
    if "gpu" in machine:
        parts.insert(0, f"{machine['gpu']['name']} ({machine['gpu']['memory_gib']} GiB, CUDA {machine['gpu']['cuda']})")
    return ", ".join(parts)


def folder_name(date: str, machine: dict[str, Any]) -> str:
    """The name of a run's folder: the date and the machine."""
    name = machine["gpu"]["name"] if "gpu" in machine else f"cpu {machine['cores']} cores"
    return f"{date}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}"


def _processor() -> str:
    """The processor's name, as the system gives it."""
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return " ".join(value.split())
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
