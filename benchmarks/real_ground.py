"""Heights from a coarse DEM on real ground: bicubic, from the DEM alone, with shading, with a model; and controls.

python -m benchmarks.real_ground --output FOLDER --scene NAME IMAGE TRUTH [--scene ...] [--tiles FOLDER METRES]
python -m benchmarks.real_ground --output FOLDER --scene ... --factor 8 --noise 3 --model output/Demo/diffusion/model
python -m benchmarks.real_ground --output FOLDER --tiles FOLDER METRES --synthetic 2 --derive

The truth is averaged over FACTOR x FACTOR pixels, and noise of NOISE metres is added: that is the coarse DEM. What
predict.py makes of DEM and image is then compared with the truth, without a border of eight pixels. Image and truth lie
on the same pixels. "Image of elsewhere" is the control that knows nothing: the same image, turned and shifted. --derive
prints what each trust in the power of the ground gives; give it scenes that will judge nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from Utils.core.command_line import run_script
from Utils.core.errors import UserError
from Utils.core.predictor import DetailModel
from Utils.core.tables import format_table, write_json
from Utils.rasters.geometry import Geometry
from Utils.rasters.source.scene_source import open_scene
from Utils.scenes.fusion.detail_fusion import TRUST_AN_OCTAVE, fuse
from Utils.scenes.fusion.image_samples import image_samples
from Utils.scenes.fusion.learned_relief import DrawDetail
from Utils.scenes.fusion.reference import read_reference
from Utils.scenes.options import SceneOptions
from Utils.synthetic.coarse_dem import CoarseDem

logger = logging.getLogger("benchmarks")

Floats = NDArray[np.float64]

BICUBIC, ALONE, SHADING, ELSEWHERE = "bicubic", "DEM alone", "shading", "image of elsewhere"
MODEL, BOTH, MODEL_ELSEWHERE, MODEL_BLIND = "model", "both", "model, image of elsewhere", "model without image"
_BORDER = 8  # pixels that are not scored
_PIXEL = 30.0  # metres: only ratios of sides matter
_CRS = CRS.from_epsg(32631)
_TRUSTED = (0.85, 0.7, 0.5, 0.35, 0.25, 0.15)


@dataclass(frozen=True)
class RealScene:
    """Image and true heights of the same pixels.

    Attributes:
        name: for the table.
        image: (3, H, W) uint8.
        truth: (H, W) metres, NaN where unknown.
    """

    name: str
    image: NDArray[np.uint8]
    truth: Floats


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = _parser().parse_args(arguments)

    def work() -> None:
        scenes = list(_scenes(given))
        if not scenes:
            raise UserError("nothing to score: give --scene, --tiles or --synthetic")
        coarse = CoarseDem(given.factor, given.noise, given.correlated, given.voids, given.seed)
        given.output.mkdir(parents=True, exist_ok=True)
        text = _derived(scenes, coarse) if given.derive else _compared(scenes, coarse, given)
        print(text)
        name = "constants.md" if given.derive else "table.md"
        (given.output / name).write_text(text + "\n", encoding="utf-8")

    return run_script(work)


def score(scene: RealScene, coarse: CoarseDem, model: Any = None) -> dict[str, dict[str, float]]:
    """RMSE in metres and error of slope (root mean square, as a ratio) of every way to heights.

    Args:
        scene: what is predicted.
        coarse: how its DEM is made.
        model: what ``load_predictor`` or ``load_detail_model`` gives, or None.
    """
    scene = _whole_cells(scene, coarse.factor)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        files = _Files(scene, coarse.of(scene.truth), coarse.factor, Path(folder))
        found[BICUBIC] = files.bicubic()
        found[ALONE] = files.fused(None)
        found[SHADING] = files.fused(files.image)
        found[ELSEWHERE] = files.fused(files.elsewhere)
        if isinstance(model, DetailModel):
            found[MODEL] = files.fused(files.image, refine=model.draw, shading=False)
            found[BOTH] = files.fused(files.image, refine=model.draw)
            found[MODEL_ELSEWHERE] = files.fused(files.elsewhere, refine=model.draw)
            found[MODEL_BLIND] = files.fused(files.image, refine=_blind(model.draw), shading=False)
        elif model is not None:
            found[MODEL] = files.predicted(model, "model")
            found[BOTH] = files.predicted(model, "both")
    return _errors(found, scene.truth)


class _Files:
    """A scene and its DEM as files, and what becomes of them."""

    def __init__(self, scene: RealScene, cells: Floats, factor: int, folder: Path) -> None:
        self._folder, height, width = folder, *scene.truth.shape
        corner = Affine(_PIXEL, 0.0, 500_000.0, 0.0, -_PIXEL, 4_000_000.0)
        self._scratch = folder / "scratch"
        self._scratch.mkdir()
        self._place = Geometry(height, width, _CRS, corner)
        self._cells, self._coarse = cells, corner @ Affine.scale(factor)
        self.image = self._write("image.tif", scene.image, corner)
        turned = np.ascontiguousarray(scene.image[:, ::-1, ::-1])
        turned = np.roll(turned, (height // 3, width // 3), axis=(1, 2))
        self.elsewhere = self._write("elsewhere.tif", turned, corner)
        self.dem = self._write("dem.tif", cells[None].astype(np.float32), self._coarse)

    def bicubic(self) -> Floats:
        heights = np.full((self._place.height, self._place.width), np.nan, np.float32)
        grids = {
            "src_transform": self._coarse,
            "dst_transform": self._place.transform,
            "src_crs": _CRS,
            "dst_crs": _CRS,
        }
        reproject(
            self._cells.astype(np.float32),
            heights,
            src_nodata=np.nan,
            dst_nodata=np.nan,
            resampling=Resampling.cubic,
            **grids,
        )
        return heights.astype(np.float64)

    def fused(
        self,
        image: Path | None,
        trust: float = TRUST_AN_OCTAVE,
        refine: DrawDetail | None = None,
        shading: bool = True,
    ) -> Floats:
        reference = read_reference(self.dem, self._place)
        samples = None
        if image is not None:
            with open_scene(image, tell=False) as source:
                samples = image_samples(source, self._place, reference.geometry, self._scratch)
        fusion = fuse(reference, self._place, image=samples, trust=trust, refine=refine, shading=shading)
        nothing = np.zeros((self._place.height, self._place.width), np.float32)
        return fusion.correction.apply(nothing, self._place).astype(np.float64)

    def predicted(self, model: Any, detail: str) -> Floats:
        from Utils.scenes.scene_run import predict_scene

        options = SceneOptions(tile_size=model.tile_size, reference=self.dem, detail=detail, overwrite=True)
        options = replace(options, model_in_metres=model.predicts == "height")
        output = self._folder / f"{detail}.tif"
        predict_scene(self.image, output, model, options, model.describe())
        with rasterio.open(output) as source:
            return source.read(1, masked=True).astype(np.float64).filled(np.nan)

    def _write(self, name: str, bands: NDArray, transform: Affine) -> Path:
        path = self._folder / name
        profile: dict[str, Any] = {"nodata": np.nan} if bands.dtype == np.float32 else {"photometric": "RGB"}
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=len(bands),
            height=bands.shape[1],
            width=bands.shape[2],
            dtype=bands.dtype,
            crs=_CRS,
            transform=transform,
            **profile,
        ) as target:
            target.write(bands)
        return path


def _errors(found: Mapping[str, Floats], truth: Floats) -> dict[str, dict[str, float]]:
    """Errors of maps of heights, on the pixels that all of them have: bicubic interpolation has none in voids."""
    inside = np.s_[_BORDER:-_BORDER, _BORDER:-_BORDER]
    off = {
        "rmse": {name: (heights - truth)[inside] for name, heights in found.items()},
        "slope": {name: (_steepness(heights) - _steepness(truth))[inside] for name, heights in found.items()},
    }
    errors: dict[str, dict[str, float]] = {name: {} for name in found}
    for what, maps in off.items():
        known = np.all([np.isfinite(one) for one in maps.values()], axis=0)
        for name, one in maps.items():
            errors[name][what] = float(np.sqrt((one[known] ** 2).mean()))
    return errors


def _steepness(heights: Floats) -> Floats:
    return np.asarray(np.hypot(*np.gradient(heights)) / _PIXEL)


def _compared(scenes: Sequence[RealScene], coarse: CoarseDem, given: argparse.Namespace) -> str:
    model = _load(given.model) if given.model else None
    scores = {}
    for scene in scenes:
        scores[scene.name] = score(scene, coarse, model)
        logger.info("%s: %s", scene.name, {name: round(one["rmse"], 2) for name, one in scores[scene.name].items()})
    document = {"coarse": vars(coarse), "model": str(given.model or ""), "scores": scores}
    write_json(given.output / "scores.json", document)
    return _tables(scores, coarse)


def _load(folder: str) -> Any:
    from Systems.models import holds_detail_model, load_detail_model, load_predictor
    from Utils.core.device import pick_device

    return (load_detail_model if holds_detail_model(folder) else load_predictor)(folder, pick_device())


def _blind(draw: DrawDetail) -> DrawDetail:
    """A network that does not see the image."""
    return lambda surface, error, relief, image: draw(surface, error, relief, np.zeros_like(image))


def _tables(scores: Mapping[str, Mapping[str, Mapping[str, float]]], coarse: CoarseDem) -> str:
    """Errors of bicubic, of the DEM alone against bicubic, and of the rest against the DEM alone."""
    parts = [f"cells of {coarse.factor} x {coarse.factor} pixels, noise {coarse.noise:g} m"]
    if coarse.correlated:
        parts[0] += f", correlated over {coarse.correlated:g} cells"
    if coarse.voids:
        parts[0] += f", {100 * coarse.voids:g} % in voids"
    ways = [way for way in next(iter(scores.values())) if way not in (BICUBIC, ALONE)]
    for what, unit in (("rmse", "RMSE (m)"), ("slope", "error of slope (m/m)")):
        rows, changes = [], []
        for name, found in scores.items():
            bicubic, alone = found[BICUBIC][what], found[ALONE][what]
            change = [100 * (alone / bicubic - 1), *(100 * (found[way][what] / alone - 1) for way in ways)]
            changes.append(change)
            rows.append([name, f"{bicubic:.3f}", f"{alone:.3f}", *(f"{one:+.1f}" for one in change)])
        for label, pick in (("mean", np.mean), ("worst", np.max)):
            rows.append([label, "", "", *(f"{pick(column):+.1f}" for column in zip(*changes, strict=True))])
        headings = [unit, BICUBIC, ALONE, "DEM alone to bicubic (%)", *(f"{way} to DEM alone (%)" for way in ways)]
        parts.append(format_table(headings, rows))
    return "\n\n".join(parts)


def _derived(scenes: Sequence[RealScene], coarse: CoarseDem) -> str:
    """What each trust an octave gives, for real and synthetic scenes apart."""
    found: dict[bool, list[list[list[float]]]] = {True: [], False: []}
    for scene in scenes:
        whole = _whole_cells(scene, coarse.factor)
        with tempfile.TemporaryDirectory() as folder:
            files = _Files(whole, coarse.of(whole.truth), coarse.factor, Path(folder))
            maps = {ALONE: files.fused(None)}
            maps |= {str(trust): files.fused(files.image, trust) for trust in _TRUSTED}
        errors = _errors(maps, whole.truth)
        changes = [
            [100 * (errors[str(trust)][what] / errors[ALONE][what] - 1) for what in ("rmse", "slope")]
            for trust in _TRUSTED
        ]
        found[scene.name.startswith(_SYNTHETIC)].append(changes)
        logger.info("%s", scene.name)
    rows = []
    for number, trust in enumerate(_TRUSTED):
        cells = [f"{trust:g}"]
        for changes in found.values():
            here = np.array([one[number] for one in changes]).reshape(-1, 2)
            cells += (
                [f"{here[:, 0].mean():+.1f}", f"{here[:, 1].mean():+.1f}", f"{here[:, 1].max():+.1f}"]
                if len(here)
                else ["", "", ""]
            )
        rows.append(cells)
    kinds = ("synthetic", "real")
    headings = ["trust an octave"]
    headings += [f"{kind}: {what}" for kind in kinds for what in ("RMSE (%)", "slope (%)", "slope, worst (%)")]
    return f"cells of {coarse.factor} x {coarse.factor} pixels, noise {coarse.noise:g} m\n\n" + format_table(
        headings, rows
    )


_SYNTHETIC = "synthetic"


def _scenes(given: argparse.Namespace) -> Iterator[RealScene]:
    for name, image, truth in given.scene or []:
        yield RealScene(name, _image(Path(image), given.bands), _heights(Path(truth)))
    for folder, metres in given.tiles or []:
        images, heights = (_only(Path(folder), part) for part in ("png-", "DEM_"))
        for path in sorted(heights.glob("*.tif")):
            image = next(images.glob(f"{path.stem}.*"))
            yield RealScene(path.stem, _image(image, None), float(metres) * _heights(path))
    for seed in range(given.synthetic):
        yield _synthetic(seed)


def _only(folder: Path, start: str) -> Path:
    found = [path for path in folder.iterdir() if path.name.startswith(start)]
    if len(found) != 1:
        raise UserError(f"--tiles {folder}: {len(found)} folders start with {start}, where one is needed")
    return found[0]


def _image(path: Path, bands: Sequence[int] | None) -> NDArray[np.uint8]:
    with open_scene(path, bands, tell=False) as source:
        image, valid = source.read(0, 0, source.height, source.width)
    # 0 marks what is unknown; a valid pixel is at least 1.
    return np.where(valid, np.round(1 + 254 * image), 0).astype(np.uint8)


def _heights(path: Path) -> Floats:
    with rasterio.open(path) as source:
        return source.read(1, masked=True).astype(np.float64).filled(np.nan)


def _synthetic(seed: int) -> RealScene:
    from Utils.synthetic.terrain_scene import write_scene

    with tempfile.TemporaryDirectory() as folder:
        files = write_scene(Path(folder), 480, 9000 + seed)
        return RealScene(f"{_SYNTHETIC} {seed}", _image(files.image, None), _heights(files.truth))


def _whole_cells(scene: RealScene, factor: int) -> RealScene:
    height, width = (side // factor * factor for side in scene.truth.shape)
    if min(height, width) < 8 * factor:
        raise UserError(f"{scene.name}: {scene.truth.shape} pixels are fewer than 8 cells of {factor} pixels")
    return replace(scene, image=scene.image[:, :height, :width], truth=scene.truth[:height, :width])


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_ground", description=__doc__, formatter_class=text)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--scene", nargs=3, action="append", metavar=("NAME", "IMAGE", "TRUTH"), help="on the same pixels"
    )
    parser.add_argument("--bands", type=_numbers, metavar="R,G,B", help="of the scenes' images (the usual ones)")
    parser.add_argument(
        "--tiles",
        nargs=2,
        action="append",
        metavar=("FOLDER", "METRES"),
        help="tiles in the published layout, and metres a grey value",
    )
    parser.add_argument("--synthetic", type=int, default=0, metavar="N", help="so many scenes of the demo's terrain")
    parser.add_argument("--factor", type=int, default=8, help="pixels along a cell (8)")
    parser.add_argument("--noise", type=float, default=3.0, help="of the cells in metres (3)")
    parser.add_argument(
        "--correlated", type=float, default=0.0, help="Gaussian over which it is correlated, in cells (0)"
    )
    parser.add_argument("--voids", type=float, default=0.0, help="share of the cells (0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="a model folder: rows with its detail, too")
    parser.add_argument("--derive", action="store_true", help="print what each trust in the power of the ground gives")
    return parser


def _numbers(text: str) -> list[int]:
    return json.loads(f"[{text}]")


if __name__ == "__main__":
    raise SystemExit(main())
