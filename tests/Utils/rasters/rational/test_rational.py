from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import RPCTransformer

from Modules.stereo.geometry import RationalGeometry
from tests.paths import SHARED
from tests.rational_cameras import camera, rpc_of, text_of, write_image
from Utils.core.errors import RasterError
from Utils.rasters.rational import RationalModel, read_rational

REAL = sorted((SHARED / "real_data" / "multiview_rpc").glob("*/*mg*.tif"))
REAL = [path for path in REAL if not path.name.startswith("ortho")]
real_images = pytest.mark.parametrize(
    "path",
    REAL or [pytest.param(None, marks=pytest.mark.skip("the shared images are not here"))],
    ids=lambda path: path and f"{path.parent.name}-{path.stem}",
)


def places(model: RationalModel, count: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns, rows and heights drawn over all that the model names."""
    drawn = np.random.default_rng(0).uniform(-1, 1, (3, count))
    line, sample, height = (drawn[i] * model.direct[5 + j] + model.direct[j] for i, j in enumerate((0, 1, 4)))
    return sample, line, height


def test_direct_after_inverse_meets_the_pixel() -> None:
    model = camera((0.3, -0.4), bent=2e-3)
    columns, rows, heights = places(model)
    longitude, latitude = model.locate(columns, rows, heights)
    x, y = model.project(longitude, latitude, heights)
    assert np.hypot(x - columns, y - rows).max() < 1e-6


def test_the_fitted_inverse_alone_stays_within_a_hundredth_of_a_pixel() -> None:
    from Utils.rasters.rational.inverse_fit import fitted_inverse, inverse_error

    model = camera((0.3, -0.4), bent=2e-3)
    assert inverse_error(model.direct, fitted_inverse(model.direct)) < 0.01


def test_longitudes_of_either_sense_are_the_same_place() -> None:
    model = camera()
    east, turned = (model.project(longitude, 0.0001, 5.0) for longitude in (10.0001, 370.0001))
    np.testing.assert_allclose(east, turned, atol=1e-6)


def test_windows_and_reduced_images_have_their_own_models() -> None:
    model = camera((0.2, 0.1))
    longitude, latitude = model.locate(50.0, 40.0, 30.0)
    column, row = model.shifted(columns=30.0, rows=20.0).project(longitude, latitude, 30.0)
    np.testing.assert_allclose([column, row], [20.0, 20.0], atol=1e-6)
    np.testing.assert_allclose(model.reduced(4).project(longitude, latitude, 30.0), [12.5, 10.0], atol=1e-6)


def test_a_model_whose_box_lies_outside_of_its_image_is_fitted_to_the_image() -> None:
    model = camera((0.2, 0.1), bent=1e-2)
    cut = model.direct.copy()
    # The same camera, written with offsets that lie thirty images away.
    for i, scale in ((0, cut[5]), (1, cut[6])):
        cut[i] += 30 * scale
        cut[10 + 40 * i : 30 + 40 * i] -= 30 * cut[30 + 40 * i : 50 + 40 * i]
    far = RationalModel(cut)
    columns, rows, heights = places(model)
    longitude, latitude = model.locate(columns, rows, heights)
    np.testing.assert_allclose(far.project(longitude, latitude, heights), [columns, rows], atol=1e-6)
    fitted = far.fitted_to(100, 120)
    np.testing.assert_allclose(fitted.direct, model.direct, rtol=1e-9, atol=1e-12)
    assert model.fitted_to(100, 120) is model


@real_images
def test_warping_a_real_image_onto_itself_moves_no_pixel(path: Path) -> None:
    model = read_rational(path)
    with rasterio.open(path) as source:
        size = tuple(-(-length // 16) for length in source.shape)
    height = torch.linspace(*model.height_range, 5, dtype=torch.float64).view(1, 5, 1, 1).expand(1, 5, *size)
    found = RationalGeometry(torch.from_numpy(model.parameters)[None, None]).positions(0, height, 16, size)
    assert (found.x - torch.arange(size[1])).abs().max() < 1e-4 / 16
    assert (found.y - torch.arange(size[0])[:, None]).abs().max() < 1e-4 / 16


def test_a_model_comes_back_from_the_tags_of_a_tiff(tmp_path: Path) -> None:
    model = camera((0.2, 0.1))
    path = write_image(tmp_path / "image.tif", np.ones((100, 120), np.uint16), model)
    np.testing.assert_allclose(read_rational(path).direct, model.direct, rtol=1e-9)


@pytest.mark.parametrize("name", ["image.rpc", "image_rpc.txt", "image_RPC.TXT", "image.RPB", "image.tif.aux.xml"])
def test_a_model_comes_from_a_file_beside_the_image(tmp_path: Path, name: str) -> None:
    model = camera((0.2, 0.1))
    path = write_image(tmp_path / "image.tif", np.ones((100, 120), np.uint16), None)
    if name.endswith("RPB"):
        _write_rpb(tmp_path / name, model)
    elif name.endswith("xml"):
        items = "".join(f'<MDI key="{key}">{value}</MDI>' for key, value in rpc_of(model).to_gdal().items())
        (tmp_path / name).write_text(f'<PAMDataset><Metadata domain="RPC">{items}</Metadata></PAMDataset>')
    else:
        (tmp_path / name).write_text(text_of(model, inverse=False))
    np.testing.assert_allclose(read_rational(path).direct, model.direct, rtol=1e-9)


def test_a_model_comes_from_the_dimap_files_of_a_delivery(tmp_path: Path) -> None:
    # As Pleiades and SPOT 6 are delivered: DIM_ and RPC_ beside IMG_, whose first pixel is line 1 and sample 1.
    model = camera((0.2, 0.1))
    path = write_image(tmp_path / "IMG_PHR1A_P_201306_R1C1.TIF", np.ones((100, 120), np.uint16), None)
    head = '<Metadata_Identification><METADATA_FORMAT version="2.0">DIMAP</METADATA_FORMAT></Metadata_Identification>'
    for name, body in (("DIM", "<Dataset_Sources/>"), ("RPC", _dimap_model(model))):
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Dimap_Document>{head}{body}</Dimap_Document>\n'
        (tmp_path / f"{name}_PHR1A_P_201306.XML").write_text(text)
    np.testing.assert_allclose(read_rational(path).direct, model.direct, rtol=1e-9)


def _dimap_model(model: RationalModel) -> str:
    """The model as DIMAP V2 holds it: ground to image is its inverse model, scales stand under the validity."""
    numbers = model.direct.tolist()
    names = [f"{key}_{what}" for what in ("OFF", "SCALE") for key in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")]
    scalars = dict(zip(names, numbers[:10], strict=True))
    scalars = scalars | {"LINE_OFF": scalars["LINE_OFF"] + 1, "SAMP_OFF": scalars["SAMP_OFF"] + 1}
    tables = [f"{key}_{part}_COEFF" for key in ("LINE", "SAMP") for part in ("NUM", "DEN")]
    inverse = {f"{name}_{i + 1}": numbers[10 + 20 * place + i] for place, name in enumerate(tables) for i in range(20)}
    validity, terms = (
        "".join(f"<{key}>{value!r}</{key}>" for key, value in part.items()) for part in (scalars, inverse)
    )
    return (
        f"<Rational_Function_Model><Global_RFM><Direct_Model/><Inverse_Model>{terms}</Inverse_Model>"
        f"<RFM_Validity>{validity}</RFM_Validity></Global_RFM></Rational_Function_Model>"
    )


def _write_rpb(path: Path, model: RationalModel) -> None:
    names = [f"{key}{what}" for what in ("Offset", "Scale") for key in ("line", "samp", "lat", "long", "height")]
    lines = [f"  {name} = {value!r};" for name, value in zip(names, model.direct[:10].tolist(), strict=True)]
    tables = [f"{key}{part}Coef" for key in ("line", "samp") for part in ("Num", "Den")]
    for i, name in enumerate(tables):
        numbers = ",\n".join(f"   {value!r}" for value in model.direct[10 + 20 * i : 30 + 20 * i].tolist())
        lines.append(f"  {name} = (\n{numbers});")
    body = "\n".join(["errBias = 0;", "errRand = 0;", *lines])
    path.write_text(
        f'satId = "QB02";\nbandId = "P";\nSpecId = "RPC00B";\nBEGIN_GROUP = IMAGE\n{body}\nEND_GROUP = IMAGE\nEND;\n'
    )


@pytest.mark.parametrize("inverse", [True, False], ids=["170 lines", "90 lines"])
def test_a_text_is_read_in_any_order_of_lines(tmp_path: Path, inverse: bool) -> None:
    model = camera((0.2, 0.1))
    lines = text_of(model, inverse).splitlines()
    (tmp_path / "a.txt").write_text("\n".join(["CREATED: 2020-01-01", *lines[::-1]]))
    found = read_rational(tmp_path / "a.txt")
    np.testing.assert_allclose(found.parameters, model.parameters, rtol=1e-6, atol=1e-12)
    assert (found.given_inverse is not None) == inverse


def test_an_inverse_of_another_image_is_not_used() -> None:
    model, other = camera((0.2, 0.1)), camera((-0.3, 0.4))
    mixed = RationalModel(model.direct, other.parameters[90:])
    np.testing.assert_array_equal(mixed.parameters, model.parameters)


def test_gdal_agrees() -> None:
    model = camera((0.3, -0.4), bent=2e-3)
    _compare_with_gdal(model, rpc_of(model))


@real_images
def test_gdal_agrees_on_real_images(path: Path) -> None:
    with rasterio.open(path) as source:
        _compare_with_gdal(read_rational(path), source.rpcs)


def _compare_with_gdal(model: RationalModel, rpcs: rasterio.rpc.RPC) -> None:
    columns, rows, heights = places(model)
    longitude, latitude = model.locate(columns, rows, heights)
    with RPCTransformer(rpcs, RPC_PIXEL_ERROR_THRESHOLD="1e-5") as gdal:
        down, across = gdal.rowcol(longitude, latitude, zs=heights, op=lambda value: value)
        there = gdal.xy(rows, columns, zs=heights)
    # GDAL counts from the corner of the first pixel.
    assert np.abs(np.array(across) - 0.5 - columns).max() < 1e-3
    assert np.abs(np.array(down) - 0.5 - rows).max() < 1e-3
    x, y = model.project(*there, heights)
    assert np.hypot(x - columns, y - rows).max() < 1e-3


@real_images
def test_rpcm_agrees_on_real_images(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "srtm4", types.ModuleType("srtm4"))  # it would fetch heights; not needed here
    rpcm = pytest.importorskip("rpcm.rpc_model")
    model = read_rational(path)
    with rasterio.open(path) as source:
        theirs = rpcm.RPCModel(source.tags(ns="RPC"), dict_format="geotiff")
    columns, rows, heights = places(model)
    longitude, latitude = model.locate(columns, rows, heights)
    x, y = theirs.projection(longitude, latitude, heights)
    assert np.hypot(x - columns, y - rows).max() < 1e-3
    x, y = model.project(*theirs.localization(columns, rows, heights), heights)
    assert np.hypot(x - columns, y - rows).max() < 1e-3


@real_images
def test_the_fitted_inverse_serves_real_images(path: Path) -> None:
    from Utils.rasters.rational.inverse_fit import inverse_error

    model = read_rational(path)
    assert inverse_error(model.direct, model.parameters[90:]) < 0.01


def test_what_has_no_model_is_refused_by_its_name(tmp_path: Path) -> None:
    bare = write_image(tmp_path / "bare.tif", np.ones((8, 8), np.uint8), None)
    with pytest.raises(RasterError, match=r"bare\.tif: has no RPC"):
        read_rational(bare)
    with pytest.raises(RasterError, match="cannot be read"):
        read_rational(tmp_path / "absent.tif")
    with pytest.raises(RasterError, match="cannot be read"):
        read_rational(tmp_path / "absent.txt")
    lines = text_of(camera(), inverse=False).splitlines()
    (tmp_path / "short.txt").write_text("\n".join(lines[:-3]))
    with pytest.raises(RasterError, match="3 of the 90 values of an RPC are missing, the first is SAMP_DEN_COEFF_18"):
        read_rational(tmp_path / "short.txt")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (5, 0.0, "a scale that is not positive"),
        (2, 95.0, "offsets at latitude 95"),
        (12, np.nan, "not finite"),
        (30, 0.0, "a denominator whose first coefficient is 0"),
        (slice(10, 30), 0.0, "cannot be inverted"),
    ],
)
def test_impossible_models_are_refused(tmp_path: Path, place: int | slice, value: float, words: str) -> None:
    model = camera()
    direct = model.direct.copy()
    direct[place] = value
    text = text_of(model, inverse=False).splitlines()
    changed = [f"{line.split(':')[0]}: {number!r}" for line, number in zip(text, direct.tolist(), strict=True)]
    (tmp_path / "a.rpc").write_text("\n".join(changed))
    with pytest.raises(RasterError, match=words):
        read_rational(tmp_path / "a.rpc")
