"""Configs, split files and rasters of any content: read, or refused in one line of the project's own."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import example, given
from hypothesis import strategies as st
from rasterio.crs import CRS

from Systems.d3rsmde.config import (
    DiffusionEvaluationConfig,
    DiffusionTrainingConfig,
    ViTEvaluationConfig,
    ViTTrainingConfig,
)
from tests.conftest import small_diffusion, small_diffusion_evaluation, small_vit, small_vit_evaluation, write_raster
from tests.fuzzing import JSON, ODD_TEXT, damaged, fuzz, is_clean, nearly
from Utils.config.config_files import load_config
from Utils.config.sections import Section
from Utils.core.errors import RasterError, UserError
from Utils.data.splits import read_split
from Utils.rasters.source.scene_source import open_scene
from Utils.rasters.tile_files import raster_size, read_height, read_image, read_prior
from Utils.scenes.fusion.reference import Geometry, read_reference

DATA, OUT = Path("data"), Path("out")
CONFIGS: list[tuple[type[Section], dict[str, Any]]] = [
    (ViTTrainingConfig, small_vit(DATA, OUT)),
    (DiffusionTrainingConfig, small_diffusion(DATA, OUT)),
    (ViTEvaluationConfig, small_vit_evaluation(DATA, OUT, OUT)),
    (DiffusionEvaluationConfig, small_diffusion_evaluation(DATA, OUT, OUT)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# Configs


def check_config(path: Path, content: bytes, kind: type[Section], overrides: list[str]) -> None:
    path.write_bytes(content)
    try:
        config = load_config(path, kind, overrides)
    except UserError as error:
        assert is_clean(error)
        return
    dumped = json.loads(json.dumps(config.model_dump()).encode("utf-8"))
    assert kind.model_validate(dumped) == config


OVERRIDES = st.lists(
    st.text(max_size=30)
    | st.builds(
        "{}={}".format, st.sampled_from(["seed", "model.options.depth", "vae", "a.b.c", "."]) | ODD_TEXT, ODD_TEXT
    )
    | st.builds(lambda key, value: f"{key}={json.dumps(value)}", st.sampled_from(["lr", "unet", "k_folds"]), JSON),
    max_size=3,
)


@pytest.mark.parametrize(("kind", "whole"), CONFIGS, ids=lambda value: getattr(value, "__name__", ""))
@fuzz(60)
@given(data=st.data())
def test_configs_that_are_nearly_right(
    folder: Path, kind: type[Section], whole: dict[str, Any], data: st.DataObject
) -> None:
    content = json.dumps(data.draw(nearly(whole))).encode()
    check_config(folder / "c.json", content, kind, data.draw(OVERRIDES))


@fuzz(60)
@given(
    kind=st.sampled_from([kind for kind, _ in CONFIGS]),
    content=st.binary(max_size=200) | damaged(json.dumps(CONFIGS[1][1]).encode()),
)
@example(kind=ViTTrainingConfig, content=b"[" * 100_000)
@example(kind=ViTTrainingConfig, content=b'{"a":' * 5000 + b"1" + b"}" * 5000)
@example(kind=ViTTrainingConfig, content=b'{"dataset_path": "x", "seed": ' + b"9" * 5000 + b"}")
@example(kind=ViTTrainingConfig, content=b'{"dataset_path": "a\\u0000b"}')
@example(kind=ViTTrainingConfig, content=b'{"dataset_path": "a\\ud800b"}')
@example(kind=ViTTrainingConfig, content=b'{"dataset_path": "x", "\\u001b[31m\\n": 1}')
def test_configs_of_any_bytes(folder: Path, kind: type[Section], content: bytes) -> None:
    check_config(folder / "c.json", content, kind, [])


@pytest.mark.parametrize(
    "override",
    [
        "model.options." + ".".join("a" * 3000) + "=1",
        "seed=" + "[" * 3000 + "]" * 3000,
        "a\x1b\nb",
        "dataset_path=a\0b",
    ],
    ids=["deep key", "deep value", "control characters", "NUL"],
)
def test_overrides_found_by_fuzzing(folder: Path, override: str) -> None:
    (folder / "c.json").write_text('{"dataset_path": "x"}', encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_config(folder / "c.json", ViTTrainingConfig, [override])
    assert is_clean(caught.value)


# Split files


@fuzz(150)
@given(
    content=st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | damaged(b"1\ntile_2\ntile_30.png\n# comment\nfield-7\n")
)
@example(content=b"../../etc/passwd")
@example(content=b"9" * 10_000)
def test_split_files_of_any_bytes(folder: Path, content: bytes) -> None:
    path = folder / "s.txt"
    path.write_bytes(content)
    try:
        ids = read_split(path)
    except UserError as error:
        assert is_clean(error)
        return
    assert ids
    assert len(set(ids)) == len(ids)
    for tile in ids:
        assert not set(tile) & set("/\\.\0:\r\n"), "an id becomes a part of file names"


# Rasters


def whole_rasters() -> dict[str, bytes]:
    """Valid files of the kinds that tiles come as, by name."""
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (1, 40, 56), np.uint8)
    colour = random.integers(0, 256, (3, 40, 56), np.uint8)
    deep = random.integers(0, 65536, (1, 40, 56), np.uint16)
    real = random.random((1, 40, 56), np.float32)
    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        "grey.png": (grey, {}),
        "colour.png": (colour, {}),
        "deep.png": (deep, {}),
        "plain.tif": (grey, {}),
        "deflate.tif": (colour, {"compress": "deflate", "interleave": "pixel"}),
        "tiled.tif": (deep, {"compress": "lzw", "tiled": True, "blockxsize": 16, "blockysize": 16, "nodata": 7}),
        "real.tif": (real, {"compress": "deflate", "predictor": 3}),
        "zstd.tif": (real.astype(np.float64), {"compress": "zstd", "bigtiff": "yes"}),
        "jpeg.tif": (colour, {"compress": "jpeg", "photometric": "ycbcr"}),
    }
    found = {}
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (bands, profile) in cases.items():
            driver = "PNG" if name.endswith("png") else "GTiff"
            count, height, width = bands.shape
            with rasterio.MemoryFile() as memory:
                options = {"height": height, "width": width, "count": count, "dtype": bands.dtype} | profile
                with memory.open(driver=driver, **options) as target:
                    target.write(bands)
                found[name] = bytes(memory.getbuffer())
    for name, values in {"real.npy": real[0], "deep.npy": deep[0]}.items():
        stream = io.BytesIO()
        np.save(stream, values)
        found[name] = stream.getvalue()
    return found


WHOLE = whole_rasters()


def read_or_refused(read: Callable[[Path], Any], path: Path) -> Any:
    """What is read; None where that is refused in one line that begins with the path."""
    try:
        return read(path)
    except RasterError as error:
        assert is_clean(error)
        assert str(error).startswith(f"{path}: ")
        return None


def check_raster(path: Path) -> Any:
    """Each reader refuses the file, or gives as many pixels as it says, in its own range; the image is returned."""
    size, image, height, prior = (
        read_or_refused(read, path) for read in (raster_size, read_image, read_height, read_prior)
    )
    if image is not None:
        assert image.shape == (3, *size) and image.dtype == np.float32 and 0.0 <= image.min() <= image.max() <= 1.0
    if height is not None:
        assert height.values.shape == height.valid.shape == size and np.isfinite(height.values[height.valid]).all()
    if prior is not None:
        assert prior.shape == size and prior.dtype == np.float32 and 0.0 <= prior.min() <= prior.max() <= 1.0
    return image


@pytest.mark.parametrize("name", WHOLE)
@fuzz(70)
@given(data=st.data())
def test_damaged_rasters(folder: Path, name: str, data: st.DataObject) -> None:
    path = folder / name
    keep = data.draw(st.sampled_from([0, 4, 8]))
    path.write_bytes(data.draw(damaged(WHOLE[name], keep)))
    image = check_raster(path)
    if name.endswith(".png") and image is not None:
        # Checksums protect the pixels of a PNG, and of none of the others.
        path.write_bytes(WHOLE[name])
        np.testing.assert_array_equal(image, read_image(path))


@fuzz(60)
@given(
    suffix=st.sampled_from([".png", ".tif", ".npy"]),
    start=st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*", b"II+\0\x08\0\0\0", b"\xff\xd8\xff", b"\x93NUMPY\x01\0"]),
    rest=st.binary(max_size=300),
)
def test_rasters_of_any_bytes(folder: Path, suffix: str, start: bytes, rest: bytes) -> None:
    path = folder / f"any{suffix}"
    path.write_bytes(start + rest)
    check_raster(path)


SIDE_FILE = b"""<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">x.vrt</MDI></Metadata>
<PAMRasterBand band="1"><NoDataValue>0</NoDataValue><Scale>2</Scale><Offset>1e3</Offset></PAMRasterBand></PAMDataset>"""


@pytest.mark.parametrize("suffix", [".aux.xml", ".msk", ".ovr"])
@fuzz(40)
@given(data=st.data())
def test_damaged_side_files(folder: Path, suffix: str, data: st.DataObject) -> None:
    path = folder / f"side{suffix}.tif"
    if not path.exists():
        write_raster(path, np.arange(2240, dtype=np.uint16).reshape(40, 56))
    whole = SIDE_FILE if suffix == ".aux.xml" else WHOLE["tiled.tif"]
    path.with_name(path.name + suffix).write_bytes(data.draw(damaged(whole)))
    check_raster(path)


# Scenes


VRT = b"""<VRTDataset rasterXSize="56" rasterYSize="40"><SRS>EPSG:32632</SRS>
<GeoTransform>500000, 1, 0, 5000000, 0, -1</GeoTransform><VRTRasterBand dataType="UInt16" band="1" blockXSize="16">
<NoDataValue>7</NoDataValue><ColorInterp>Gray</ColorInterp><ComplexSource><SourceFilename relativeToVRT="1">part.tif
</SourceFilename><SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="56" ySize="40"/><ScaleRatio>2</ScaleRatio>
<DstRect xOff="0" yOff="0" xSize="56" ySize="40"/></ComplexSource></VRTRasterBand></VRTDataset>"""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["scene.vrt", "tiled.tif", "deflate.tif", "jpeg.tif"])
@fuzz(40)
@given(data=st.data())
def test_damaged_scenes(folder: Path, name: str, data: st.DataObject) -> None:
    (folder / "part.tif").write_bytes(WHOLE["tiled.tif"])
    path = folder / f"scene-{name}"
    whole = VRT.replace(b"part.tif\n", b"part.tif") if name == "scene.vrt" else WHOLE[name]
    path.write_bytes(data.draw(damaged(whole, data.draw(st.sampled_from([0, 8])))))
    try:
        with open_scene(path) as scene:
            scene.read(0, 0, min(scene.height, 64), min(scene.width, 64))
            scene.thumbnail(32)
    except (RasterError, UserError) as error:
        assert is_clean(error)
    try:
        read_reference(path, Geometry(40, 56, CRS.from_epsg(32632), Affine(1, 0, 500_000, 0, -1, 5_000_000)))
    except (RasterError, UserError) as error:
        assert is_clean(error)


# Found by fuzzing


# rasterio logs GDAL's messages too, and stumbles over the same bytes there.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_scene_whose_damage_is_quoted(folder: Path) -> None:
    """GDAL quotes the bytes that it cannot read, and rasterio takes its message for UTF-8."""
    path = folder / "quoted.vrt"
    path.write_bytes(VRT.replace(b'rasterXSize="', b'rasterXSize=\x01\x80"'))
    with pytest.raises(RasterError, match=r"quoted\.vrt: cannot be read") as caught:
        open_scene(path)
    assert is_clean(caught.value)
    with pytest.raises(UserError, match=r"quoted\.vrt' cannot be read"):
        read_reference(path, Geometry(40, 56, CRS.from_epsg(32632), Affine(1, 0, 500_000, 0, -1, 5_000_000)))


def test_arrays_of_nothing(folder: Path) -> None:
    path = folder / "nothing.npy"
    for shape in ((0, 5), (5, 0), (0, 0)):
        np.save(path, np.zeros(shape, np.float32))
        for read in (read_height, read_prior):
            with pytest.raises(RasterError, match="an array of shape"):
                read(path)


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_every_range_are_invalid_without_a_word(folder: Path) -> None:
    path = folder / "beyond.tif"
    values = np.array([[1e300, -1e308, 10.0, np.inf]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_raster(path, values)
        with rasterio.open(path, "r+") as target:
            target.scales = (1e300,)
            target.offsets = (-1e300,)
    np.testing.assert_array_equal(read_height(path).valid, [[False, False, False, False]])
