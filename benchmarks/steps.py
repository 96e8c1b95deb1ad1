"""How many refinement steps are worth it: three ways to train the U-Net, scored with 1, 2, 3 and 6 steps on the demo.

python -m Systems.d3rsmde.demo --seed 0 && python -m benchmarks.steps --seed 0

Data, priors and autoencoder are those that ``make demo`` has left; only the U-Net is trained anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import evaluateDiffusion
import trainDiffusion
from Systems.d3rsmde.demo import CONFIGS
from Utils.core.errors import UserError
from Utils.core.tables import format_table, write_json

# What each way to train says beside the demo's config, and the numbers of steps that it is scored with.
WAYS: Mapping[str, tuple[Mapping[str, Any], Sequence[int]]] = {
    "published: truth in the blend": ({"own_prediction_share": 0.0}, (1, 2, 3, 6)),
    "own first prediction in the blend": ({"own_prediction_share": 1.0}, (1, 2, 3, 6)),
    "one_step": ({"own_prediction_share": 0.0, "one_step": True}, (1,)),
}
_SCORES = ("paper.mae", "paper.psnr", "paper.ssim", "aligned.gradient_error", "aligned.mae")
_HEADINGS = ("training", "steps", "MAE ↓", "PSNR (dB) ↑", "SSIM ↑", "gradient error ↓", "MAE, aligned ↓", "ms a tile")
_DIGITS = (2, 2, 3, 2, 1)


def compare(seed: int, folder: Path, epochs: int | None = None) -> dict[str, Any]:
    """Train and score every way.

    Args:
        seed: of the U-Nets; the demo's own.
        folder: for runs and results.
        epochs: None takes the demo's.

    Returns:
        What is written to ``folder/steps.json``: by way and steps, each score's mean, and its change against the prior
        with the standard error.

    Raises:
        UserError: a script failed; it has said why.
    """
    train = json.loads((CONFIGS / "diffusion_train.json").read_text(encoding="utf-8"))
    frozen = Path(train["output_dir"]) / "frozen_vae"
    found: dict[str, Any] = {"seed": seed, "ways": {}}
    for number, (name, (changes, steps)) in enumerate(WAYS.items()):
        run = folder / f"way_{number}"
        settings = {**changes, "seed": seed, "vae_epochs": 0, "vae_path": str(frozen), "output_dir": str(run)}
        if epochs is not None:
            settings["epochs"] = epochs
        _run(trainDiffusion.main, "diffusion_train", settings)
        for count in steps:
            scored = folder / f"scores_{number}_{count}"
            cut = {"diffusion_cfg.diff_iter": count} if len(steps) > 1 else {}
            about = {"checkpoint_path": str(run), "output_dir": str(scored), "seed": seed, "pictures": 0}
            _run(evaluateDiffusion.main, "diffusion_evaluate", about | cut)
            document = json.loads((scored / "metrics.json").read_text(encoding="utf-8"))
            found.setdefault("prior", _means(document["summary"]["coarse"]))
            found["ways"].setdefault(name, {})[str(count)] = {
                "scores": _means(document["summary"]["refined"]),
                "change": {key: document["change"][key] for key in _SCORES},
                "seconds_per_tile": document["seconds_per_tile"],
            }
            write_json(folder / "steps.json", found)
    return found


def table(found: Mapping[str, Any]) -> str:
    """The scores as a markdown table."""
    rows = [["(coarse prior)", "", *_cells(found["prior"]), ""]]
    for name, by_steps in found["ways"].items():
        for steps, one in by_steps.items():
            rows.append([name, steps, *_cells(one["scores"]), f"{1000 * one['seconds_per_tile']:.0f}"])
    return format_table(list(_HEADINGS), rows)


def _run(script: Any, config: str, settings: Mapping[str, Any]) -> None:
    arguments = ["--config", str(CONFIGS / f"{config}.json")]
    for key, value in settings.items():
        arguments += ["--set", f"{key}={json.dumps(value) if not isinstance(value, str) else value}"]
    if script(arguments):
        raise UserError(f"{config} failed")


def _means(summary: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {key: summary[key]["mean"] for key in _SCORES}


def _cells(scores: Mapping[str, float]) -> list[str]:
    return [f"{scores[key]:.{digits}f}" for key, digits in zip(_SCORES, _DIGITS, strict=True)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.steps", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("output/Demo/steps"))
    parser.add_argument("--epochs", type=int, help="of each U-Net (the demo's)")
    given = parser.parse_args(arguments)
    try:
        print(table(compare(given.seed, given.output, given.epochs)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
