"""Is the synthetic terrain like real ground?  Statistics of both, and a model that was trained on it on real tiles.

python -m benchmarks.synthetic_ground --output FOLDER --tiles FOLDER
python -m benchmarks.synthetic_ground --output FOLDER --tiles FOLDER --model output/Demo/diffusion/model

The first table compares tiles in the published layout with as many synthetic ones of the same size. With --model the
second scores its maps on the real tiles, whole and in pieces, by the aligned protocol, beside maps that anybody can
draw: one value everywhere, and the image's brightness, blurred and inverted (plains are bright, forests dark). The
third tells which shapes are right: how each stage's maps correlate with the truth, large and small shapes apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from benchmarks.real_ground import RealScene
from Utils.core.command_line import run_script
from Utils.core.tables import format_table
from Utils.data.published_layout import list_tiles
from Utils.data.tile_dataset import read_tile
from Utils.scoring.aligned import aligned_scores
from Utils.synthetic.terrain import make_scene
from Utils.synthetic.terrain_image import expose_tile

Floats = NDArray[np.float64]

# Bands of frequency, cycles a pixel, each an octave; the power falls from one to the next.
_BANDS = tuple((2.0**-k, 2.0 ** (1 - k)) for k in (6, 5, 4, 3, 2))
# Far from the seeds of the demo's data.
_FIRST_SEED = 2_000_000
_BLURS = (2, 8, 16, 32)
# Gaussians between which shapes are compared, in pixels; the largest have no upper end.
_SCALES = ((1, 2), (2, 4), (4, 8), (8, 16), (16, None))
# Pieces with less than this of the 255 grey values of their tile are sea or plain: there is nothing to draw.
_LEAST_RELIEF = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic_ground", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--tiles", type=Path, required=True, help="folder of one part in the published layout")
    parser.add_argument("--model", type=Path, help="folder of a model of both stages, trained on synthetic terrain")
    parser.add_argument("--piece", type=int, default=128, help="pixels a side of the pieces (%(default)s)")
    given = parser.parse_args(arguments)

    def work() -> None:
        real = read_tiles(given.tiles)
        size = min(min(scene.truth.shape) for scene in real)
        synthetic = [synthetic_tile(size, _FIRST_SEED + k) for k in range(len(real))]
        text = compared(real, synthetic)
        if given.model:
            text += "\n\n" + scored(real, given.model, given.piece)
            text += "\n\n" + by_scale(real, given.model, given.piece)
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "table.md").write_text(text + "\n", encoding="utf-8")
        print(text)

    return run_script(work)


def read_tiles(part: Path) -> list[RealScene]:
    """Tiles in the published layout as training sees them: images as they are, heights stretched to 0..255.

    Raises:
        UserError: ``part`` holds no tiles, or files that cannot be read.
    """
    found = []
    for name, files in list_tiles(part.parent, part.name).items():
        item = read_tile(name, files)
        height = np.where(item["valid"][0].numpy(), item["target"][0].numpy().astype(np.float64), np.nan)
        low, high = np.nanmin(height), np.nanmax(height)
        image = np.rint(255 * item["image"].numpy()).astype(np.uint8)
        found.append(RealScene(name, image, (height - low) * (255.0 / max(high - low, 1e-9))))
    return found


def synthetic_tile(size: int, seed: int) -> RealScene:
    """A tile as the demo's data have them: heights stretched to 0..255, an exposure of its own."""
    scene = make_scene(size, seed)
    image = expose_tile(np.random.default_rng(seed), scene.image)
    low, high = float(scene.height.min()), float(scene.height.max())
    return RealScene(f"synthetic {seed}", image.transpose(2, 0, 1), (scene.height - low) * (255.0 / (high - low)))


def statistics(scene: RealScene) -> dict[str, float]:
    """Numbers that tell one kind of picture and ground from another; brightness is 0..1."""
    colour = scene.image / 255.0
    light = colour.mean(axis=0)
    height = np.where(np.isfinite(scene.truth), scene.truth, np.nanmean(scene.truth))
    down, across = np.gradient(height)
    found = {
        "brightness": light.mean(),
        "its deviation": light.std(),
        "pixels below 0.08 (%)": 100 * (light < 0.08).mean(),
        "pixels above 0.9 (%)": 100 * (light > 0.9).mean(),
        "colour: largest less smallest band": np.ptp(colour, axis=0).mean(),
        "brightness with height, correlation": _correlation(light, height),
        "the same, both blurred by 8 pixels": _correlation(gaussian_filter(light, 8), gaussian_filter(height, 8)),
        "brightness with slope, correlation": _correlation(light, np.hypot(down, across)),
        "share of fine brightness that slopes explain (%)": 100 * _shading(light, down, across),
        "heights below a tenth of the range (%)": 100 * (height < height.min() + 0.1 * np.ptp(height)).mean(),
    }
    for name, values in (("image", light), ("heights", height)):
        for (low, high), fall in zip(_BANDS[1:], _falls(values), strict=True):
            found[f"{name}: fall of power (octaves) to 1/{1 / low:.0f} .. 1/{1 / high:.0f} a pixel"] = fall
    return {name: float(value) for name, value in found.items()}


def compared(real: Sequence[RealScene], synthetic: Sequence[RealScene]) -> str:
    """Table of the statistics: mean and deviation over the tiles of each kind."""
    both = [[statistics(scene) for scene in scenes] for scenes in (real, synthetic)]
    rows = []
    for name in both[0][0]:
        cells = [np.array([found[name] for found in kind]) for kind in both]
        rows.append([name, *(f"{values.mean():.2f} ± {values.std():.2f}" for values in cells)])
    return format_table(["mean ± deviation", f"{len(real)} real tiles", f"{len(synthetic)} synthetic tiles"], rows)


def scored(real: Sequence[RealScene], model: Path, piece: int) -> str:
    """Table of the mean absolute error after the best scale and shift, of 0..255, on whole tiles and on pieces."""
    ways = dict(_trivial()) | dict(_of_model(model))
    parts = {
        "whole tiles": list(real),
        f"pieces of {piece}": [part for scene in real for part in _pieces(scene, piece)],
    }
    errors = {kind: _mean_errors(scenes, ways) for kind, scenes in parts.items()}
    headings = ["aligned MAE", *(f"{len(scenes)} {kind}" for kind, scenes in parts.items())]
    return format_table(headings, [[way, *(f"{errors[kind][way]:.2f}" for kind in parts)] for way in ways])


def by_scale(real: Sequence[RealScene], model: Path, piece: int) -> str:
    """Table of the mean correlation of the model's maps with the truth in shapes of each size, on pieces of tiles."""
    parts = [part for scene in real for part in _pieces(scene, piece) if np.isfinite(part.truth).all()]
    names = [f"{low} to {high} px" if high else f"above {low} px" for low, high in _SCALES]
    rows = []
    for way, draw in _of_model(model):
        found = []
        for part in parts:
            drawn = draw(part.image / 255.0)
            pairs = ((_between(drawn, *scale), _between(part.truth, *scale)) for scale in _SCALES)
            found.append([_correlation(*pair) for pair in pairs])
        rows.append([way, *(f"{value:.3f}" for value in np.mean(found, axis=0))])
    return format_table([f"correlation with the truth, {len(parts)} pieces", *names], rows)


def _between(values: Floats, low: float, high: float | None) -> Floats:
    """Shapes of a map between two Gaussians."""
    smooth = np.asarray(gaussian_filter(values, low))
    return smooth - (values.mean() if high is None else gaussian_filter(values, high))


Way = Callable[[Floats], Floats]


def _mean_errors(scenes: Sequence[RealScene], ways: Mapping[str, Way]) -> dict[str, float]:
    found = {
        name: [
            aligned_scores(scene.truth, draw(scene.image / 255.0), np.isfinite(scene.truth))["mae"] for scene in scenes
        ]
        for name, draw in ways.items()
    }
    return {name: float(np.mean(values)) for name, values in found.items()}


def _trivial() -> Iterator[tuple[str, Way]]:
    yield "one value", lambda image: np.zeros(image.shape[1:])
    for blur in _BLURS:
        yield f"darkness, blurred by {blur} px", lambda image, blur=blur: -gaussian_filter(image.mean(axis=0), blur)


def _of_model(folder: Path) -> Iterator[tuple[str, Way]]:
    from Systems.d3rsmde.build import load_model

    model = load_model(folder).eval()

    def coarse(image: Floats) -> Floats:
        with torch.inference_mode():
            return model.predict_coarse(torch.from_numpy(image[None]).float())[0, 0].double().numpy()

    def refined(image: Floats) -> Floats:
        with torch.inference_mode():
            images = torch.from_numpy(image[None]).float()
            return model.refine(images, model.predict_coarse(images)).height[0, 0].double().numpy()

    yield "model: coarse", coarse
    if model.refines:
        yield "model: refined", refined


def _pieces(scene: RealScene, side: int) -> Iterator[RealScene]:
    height, width = scene.truth.shape
    for row in range(0, height - side + 1, side):
        for column in range(0, width - side + 1, side):
            truth = scene.truth[row : row + side, column : column + side]
            low, high = np.nanmin(truth), np.nanmax(truth)
            if high - low >= _LEAST_RELIEF:
                image = scene.image[:, row : row + side, column : column + side]
                yield RealScene(scene.name, image, (truth - low) * (255.0 / (high - low)))


def _correlation(one: Floats, other: Floats) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _shading(light: Floats, down: Floats, across: Floats) -> float:
    """Share of the brightness between 1 and 6 pixels that is linear in the slopes: Lambert's law, one sun."""
    fine = [(gaussian_filter(values, 1) - gaussian_filter(values, 6)).ravel() for values in (light, down, across)]
    slopes = np.stack(fine[1:], axis=1)
    factors = np.linalg.lstsq(slopes, fine[0], rcond=None)[0]
    return float(1 - np.sum((fine[0] - slopes @ factors) ** 2) / np.sum(fine[0] ** 2))


def _falls(values: Floats) -> Floats:
    """How many octaves the power falls from one band of `_BANDS` to the next."""
    window = np.outer(np.hanning(values.shape[0]), np.hanning(values.shape[1]))
    power = np.abs(np.fft.fft2((values - values.mean()) * window)) ** 2
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, values.shape), indexing="ij"))
    means = [power[(frequency >= low) & (frequency < high)].mean() for low, high in _BANDS]
    return -np.diff(np.log2(means))


if __name__ == "__main__":
    raise SystemExit(main())
