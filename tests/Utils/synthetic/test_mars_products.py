"""Made-up HiRISE products: GDAL reads them as it reads real ones, and what is seen fits the ground."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.vrt import WarpedVRT

from Utils.rasters.planetary.product_label import read_label
from Utils.rasters.planetary.special_values import NULL
from Utils.synthetic.mars_image import hapke, render_image
from Utils.synthetic.mars_products import main, plan_pairs, write_products


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mars") / "products"
    planned = plan_pairs(2, (96, 80), seed=5, repeats=1, finer=2, polar=1, radius=1)
    write_products(folder, planned, workers=1)
    return folder


def test_products_are_read_by_gdal_with_labels_of_the_real_form(products: Path) -> None:
    first, equatorial, again = sorted(products.rglob("*.IMG"), key=lambda path: path.name[5:])
    assert [path.name[:5] for path in (first, equatorial, again)] == ["DTEPC", "DTREC", "DTREC"]
    for dtm in (first, equatorial, again):
        label, ortho = read_label(dtm), next(dtm.parent.glob("*_ORTHO.JP2"))
        assert label is not None and label.product_id == dtm.stem and len(label.observations) == 2
        assert label.height_reference == ("areoid" if dtm is first else "radius")
        with (
            rasterio.open(dtm) as heights,
            rasterio.open(ortho) as image,
            rasterio.open(ortho.with_suffix(".LBL")) as own,
        ):
            values = heights.read(1)
            assert heights.driver == "PDS" and heights.nodata == float(NULL) and (values == NULL).any()
            assert ((values == NULL) == (heights.read_masks(1) == 0)).all()
            assert np.ptp(values[values != NULL]) < 100.0
            assert image.res[0] == pytest.approx(heights.res[0] / 2) and image.shape != heights.shape
            # Two ways to the same place: the boxes of the JPEG 2000, and its label.
            assert own.driver == "PDS" and np.allclose(own.transform, image.transform, atol=1e-3)
            assert (own.read(1) == image.read(1)).all()


def test_west_facing_slopes_are_bright_where_the_sun_is_in_the_west(products: Path) -> None:
    dtm = next(products.rglob("DTEPC*.IMG"))
    label = read_label(next(dtm.parent.glob("*_ORTHO.LBL")))
    assert label is not None and label.sun is not None and 255.0 <= label.sun.azimuth <= 285.0
    with rasterio.open(dtm) as heights, rasterio.open(next(dtm.parent.glob("*_ORTHO.JP2"))) as image:
        with WarpedVRT(image, crs=heights.crs, transform=heights.transform, height=96, width=80) as warped:
            light = warped.read(1)
        values = heights.read(1)
    inside = np.s_[8:-8, 8:-8]
    eastward = np.gradient(values, axis=1)[inside]
    assert np.corrcoef(eastward.ravel(), light[inside].ravel())[0, 1] > 0.5


def test_two_pairs_of_one_ground_share_half_of_it(products: Path) -> None:
    first, second = sorted(products.rglob("DTREC*.IMG"))
    with rasterio.open(first) as one, rasterio.open(second) as two:
        south, north = one.read(1)[48:], two.read(1)[:48]
        assert two.transform.f == pytest.approx(one.transform.f - 48 * one.res[1])
    both = (south != NULL) & (north != NULL)
    difference = south[both].astype(float) - north[both]
    # Errors of stereo of 0.1 m in each, and radii in 32 bits have steps of 0.25 m.
    assert np.abs(difference).mean() < 0.3 and np.std(south[both].astype(float)) > 1.0


def test_a_wall_casts_a_shadow_away_from_the_sun_and_hapke_is_flatter_than_lambert() -> None:
    heights = np.zeros((64, 64))
    heights[:, 30:33] = 10.0
    image = render_image(heights, 1.0, 270.0, 45.0, "lambert", np.random.default_rng(0), albedo_contrast=0.0)
    assert image[:, 35:41].max() < image[:, 46:60].min() and image[:, 35:41].max() < image[:, 5:25].min()
    assert image.min() >= 3 and image.max() <= 254
    steep, flat = (float(hapke(np.array(cosine), np.array(0.9), 0.8)) for cosine in (0.3, 0.9))
    assert 0.3 / 0.9 < steep / flat < 1.0


def test_the_same_arguments_write_the_same_files_and_others_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        assert main(["--output", str(tmp_path / name), "--pairs", "1", "--size", "64", "48", "--repeats", "0"]) == 0
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*")} for name in ("one", "two"))
    assert one == two and len(one) == 4
    assert main(["--output", str(tmp_path / "one"), "--pairs", "1", "--seed", "1"]) == 2
    assert "another dataset" in capsys.readouterr().err
