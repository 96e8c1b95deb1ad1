"""predict.py in this process, with a model that costs nothing, and comparing what it wrote."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

import predict
from tests.Utils.scenes.metamorphic.disguises import Disguise
from tests.Utils.scenes.metamorphic.landscape import (
    PIXEL,
    SIZE,
    TILE,
    canonical_dem,
    canonical_prediction,
    canonical_truth,
    model,
    terrain,
)
from tests.Utils.scenes.metamorphic.rasters import Floats, Raster
from Utils.core.predictor import Predictor
from Utils.scenes.accuracy.scene_scores import SceneScores
from Utils.scenes.accuracy.scene_scoring import score_scene

MAPS = {"prediction": canonical_prediction, "truth": canonical_truth, "baseline": canonical_dem}
"""The maps that are scored, by role."""

_MODEL = Predictor(model, "relative height", "height", 1, TILE, {"name": "metamorphic", "weights": "none"})


@dataclass(frozen=True)
class Outcome:
    """What a run of predict.py left.

    Attributes:
        status: its exit status.
        said: what it printed, on both channels.
        heights: (H, W), NaN where invalid; None where nothing was written.
        transform: where these pixels lie.
        stretch: how the image's values were stretched, as the output's tag says it.
        left: names of all files beside the inputs, hidden ones too.
    """

    status: int
    said: str
    heights: Floats | None
    transform: Affine | None
    stretch: str
    left: tuple[str, ...]


@contextlib.contextmanager
def _cheap_model() -> Iterator[None]:
    """In place of the module that opens trained models, whose imports take seconds."""
    name = "Systems.models"
    before = sys.modules.get(name)
    sys.modules[name] = SimpleNamespace(  # type: ignore[assignment]
        from_hub=lambda model: model,
        load_predictor=lambda *_, **__: _MODEL,
        holds_class_model=lambda *_: False,
        holds_detail_model=lambda *_: False,
        load_detail_model=None,
    )
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


def run_predict(folder: Path, *arguments: str) -> Outcome:
    """Run predict.py; the output lies in a folder of its own, so that everything that is left there is seen."""
    place = folder / "result"
    place.mkdir()
    output = place / "height.tif"
    said = io.StringIO()
    with _cheap_model(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = predict.main(
            ["--model", "none", "--output", str(output), "--tile-size", str(TILE), "--overlap", "32", *arguments]
        )
    heights, transform, stretch = None, None, ""
    if output.exists():
        with rasterio.open(output) as source:
            heights, transform = source.read(1, masked=True).astype(np.float64).filled(np.nan), source.transform
            stretch = source.tags()["D3RSMDE_STRETCH"]
    return Outcome(
        status, said.getvalue(), heights, transform, stretch, tuple(sorted(one.name for one in place.iterdir()))
    )


def predict_with(folder: Path, image: Raster, dem: Raster | None = None, extra: Iterable[str] = ()) -> Outcome:
    """Write image and DEM and run predict.py on them."""
    arguments = ["--input", image.write(folder / "image", "image")]
    if dem is not None:
        arguments += ["--reference", dem.write(folder / "dem", "dem")]
    for raster in (image, dem):
        if raster is not None:
            # One word an option: a negative value would look like another option.
            arguments += [f"{option}={value}" for option, value in raster.given.items()]
    return _on_grid_of(image, run_predict(folder, *arguments, *extra))


def _on_grid_of(image: Raster, outcome: Outcome) -> Outcome:
    """The outcome with its pixels in the order of the image's: an output may point north where its image does not."""
    if outcome.heights is None or outcome.transform is None:
        return outcome
    there = np.meshgrid(*(np.arange(side) + 0.5 for side in outcome.heights.shape[::-1]))
    columns, rows = (
        (np.rint(place - 0.5)).astype(int) for place in ~image.transform @ outcome.transform @ tuple(there)
    )
    found = np.full(image.valid.shape, np.nan)
    found[rows, columns] = outcome.heights
    return replace(outcome, heights=found, transform=image.transform)


def score(maps: dict[str, Path], folder: Path, **disguised: Raster) -> SceneScores:
    """Scores of the three maps, by role, some of them in disguise."""
    maps = maps | {role: Path(raster.write(folder / role, role)) for role, raster in disguised.items()}
    return score_scene(maps["prediction"], maps["truth"], baseline=maps["baseline"])


def on_canonical_grid(heights: Floats, image: Raster) -> Floats:
    """Heights on a mirrored or turned grid, (H, W), in the canonical order of pixels."""
    columns, rows = image.places / PIXEL - 0.5
    places = np.rint([rows, columns]).astype(int)
    assert np.abs(np.stack([rows, columns]) - places).max() < 1e-6, "the image was resampled"
    found = np.full((SIZE, SIZE), np.nan)
    found[places[0], places[1]] = heights
    return found


def error_of(heights: Floats, image: Raster) -> float:
    """Root mean square error against the truth, metres, on any grid."""
    error = heights - terrain(image.places)
    return rms(error)


def rms(values: NDArray[np.float64]) -> float:
    """Root mean square over what is known."""
    return float(np.sqrt(np.nanmean(values**2)))


def refused_rightly(outcome: Outcome, pattern: str) -> bool:
    """Whether a run ended in one line that fits a pattern, and left nothing unsaid behind."""
    if outcome.status != 2 or outcome.heights is not None:
        return False
    errors = [line for line in outcome.said.splitlines() if line.startswith("error: ")]
    return len(errors) == 1 and re.search(pattern, errors[0]) is not None


def assert_same(found: Floats, wanted: Floats, tolerance: float, reason: str) -> None:
    """The same pixels have heights, and they differ by no more than the tolerance."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted), "pixels with heights")
    difference = np.abs(found - wanted)
    assert np.nanmax(difference) <= tolerance, (
        f"heights differ by up to {np.nanmax(difference):.4g} m (root mean square {rms(difference):.4g} m), "
        f"allowed are {tolerance:g} m: {reason}"
    )


def assert_heights(outcome: Outcome, image: Raster, wanted: Floats, disguises: Sequence[Disguise]) -> None:
    """The run gave the wanted heights, on the canonical grid, and said what it must; or it was refused rightly."""
    for disguise in disguises:
        if disguise.refusal and refused_rightly(outcome, disguise.refusal):
            return
        assert re.search(disguise.says, outcome.said), f"the log does not say {disguise.says}: {outcome.said}"
    assert outcome.status == 0 and outcome.heights is not None, outcome.said
    worst = max(disguises, key=lambda one: one.tolerance)
    found = on_canonical_grid(outcome.heights, image)
    assert_same(found, wanted, sum(one.tolerance for one in disguises), worst.reason)
