"""Labels of PDS3, PDS4 and ISIS3, values that mean no data, names, and files that are not whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from Utils.core.errors import RasterError
from Utils.rasters.planetary.hirise_names import best_ortho, read_dtm_name, read_ortho_name
from Utils.rasters.planetary.product_label import Measured, Sun, parse_label, read_label
from Utils.rasters.planetary.special_values import NULL, is_special
from Utils.rasters.planetary.whole_files import check_whole_product
from Utils.rasters.source.scene_source import open_scene

PDS3 = b"""PDS_VERSION_ID            = PDS3\r
/* PRODUCT_ID = "IN A COMMENT" */\r
RECORD_BYTES = 400\r
^IMAGE                    = 3\r
DATA_SET_NAME             = "MRO MARS HIGH RESOLUTION IMAGING SCIENCE\r
                             EXPERIMENT DTM V1.0 (A = B)"\r
PRODUCT_ID                = "DTEED_042328_1985_033150_1985_A01"\r
SOURCE_PRODUCT_ID         = (ESP_042328_1985,\r
                             ESP_033150_1985)\r
OBJECT = IMAGE\r
  LINES = 10\r
  LINE_SAMPLES = 100\r
  SAMPLE_BITS = 32\r
  NOTE = "Pixel values are elevations above the martian equipotential surface"\r
END_OBJECT = IMAGE\r
OBJECT = IMAGE_MAP_PROJECTION\r
  MAP_SCALE                    = 2.0194076293477 <METERS/PIXEL>\r
  INCIDENCE_ANGLE = 52.5 <DEG>\r
  SUB_SOLAR_AZIMUTH = 190.0 <DEG>\r
END_OBJECT = IMAGE_MAP_PROJECTION\r
END\r
PRODUCT_ID = "AFTER THE END"\r
"""
ISIS = b"""Object = IsisCube
  Object = Core
    Group = Pixels
      Type = Real
    End_Group
  End_Object
  Group = Mapping
    ProjectionName     = PolarStereographic
    EquatorialRadius   = 3396190.0 <meters>
  End_Group
End_Object
End
"""


def test_a_label_is_read_with_units_lists_and_comments_up_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "dtm.IMG"
    path.write_bytes(PDS3.ljust(800, b" ") + b"\0" * 4000)
    label = read_label(path)
    assert label is not None and label.attached
    assert label.product_id == "DTEED_042328_1985_033150_1985_A01" and len(label.values["PRODUCT_ID"]) == 1
    assert label.observations == ["ESP_042328_1985", "ESP_033150_1985"]
    assert label.get("map_scale") == Measured("2.0194076293477", "METERS/PIXEL") and label.number("LINES") == 10
    assert label.text("DATA_SET_NAME").endswith("SCIENCE EXPERIMENT DTM V1.0 (A = B)")
    assert label.height_reference == "areoid"
    # Three o'clock plus 190 degrees is a little north of west.
    assert label.sun == Sun(280.0, 37.5)
    image = tmp_path / "ortho.JP2"
    image.write_bytes(b"nothing")
    assert read_label(image) is None
    (tmp_path / "ortho.LBL").write_bytes(PDS3)
    beside = read_label(image)
    assert beside is not None and not beside.attached and beside.path.name == "ortho.LBL"
    with pytest.raises(RasterError, match=r"cannot be read"):
        read_label(tmp_path / "missing.IMG")


def test_labels_of_isis_and_pds4_are_read_too(tmp_path: Path) -> None:
    found = parse_label(ISIS)
    assert found["PROJECTIONNAME"] == [Measured("PolarStereographic")]
    assert found["EQUATORIALRADIUS"] == [Measured("3396190.0", "METERS")]
    path = tmp_path / "heights.xml"
    where = {"crs": "+proj=eqc +R=3396190 +units=m", "transform": from_origin(0, 0, 2, 2)}
    with rasterio.open(
        path, "w", driver="PDS4", height=4, width=5, count=1, dtype="float32", nodata=float(NULL), **where
    ) as target:
        target.write(np.zeros((4, 5), np.float32), 1)
    label = read_label(path)
    assert label is not None and not label.attached and label.text("data_type").startswith("IEEE754")
    assert label.product_id and label.sun is None and label.height_reference is None
    assert parse_label(b"<Product_Observational><cut") == {}


@pytest.mark.parametrize(
    ("values", "special"),
    [
        (np.arange(0xFF7FFFFB, 0xFF800000, dtype=np.uint32).view(np.float32), [True] * 5),
        (
            np.array([np.finfo(np.float32).min, np.finfo(np.float32).max, np.nan, np.inf, -np.inf], np.float32),
            [True] * 5,
        ),
        (np.array([-8528.0, 21241.0, 0.0, -1e6], np.float32), [False] * 4),
        (np.array([-32768, -32752, -32751, 0], np.int16), [True, True, False, False]),
        (np.array([0, 1, 254, 255], np.uint8), [True, False, False, False]),
    ],
)
def test_null_and_saturation_are_told_by_size_never_by_equality(values: np.ndarray, special: list[bool]) -> None:
    assert is_special(values).tolist() == special


def test_the_null_of_the_archive_is_not_the_lowest_number() -> None:
    assert float(NULL) == -3.4028226550889045e38 != float(np.finfo(np.float32).min)


def test_names_say_reference_projection_grid_and_producer_and_choose_the_image() -> None:
    dtm = read_dtm_name("DTRPB_001513_2655_001777_2650_U02.IMG")
    assert dtm is not None and (dtm.reference, dtm.projection, dtm.grid) == ("radius", "polar stereographic", "B")
    assert (dtm.producer, dtm.version, dtm.sources) == ("U", 2, ("001513_2655", "001777_2650"))
    assert read_dtm_name("ESP_042328_1985_RED_B_01_ORTHO.JP2") is None
    names = [
        f"PSP_{text}_01_ORTHO"
        for text in (
            "001777_2650_RED_B",
            "001513_2655_RED_C",
            "001513_2655_RED_A",
            "001513_2655_IRB_B",
            "009999_2655_RED_B",
        )
    ]
    images = [found for name in names if (found := read_ortho_name(name)) is not None]
    assert len(images) == 5
    order = []
    while (best := best_ortho(dtm, images)) is not None:
        order.append(best.name)
        images.remove(best)
    assert [name[4:-9] for name in order] == [
        "001777_2650_RED_B",
        "001513_2655_RED_A",
        "001513_2655_RED_C",
        "001513_2655_IRB_B",
    ]


def test_files_that_are_not_whole_are_refused_with_their_lengths(tmp_path: Path) -> None:
    image = tmp_path / "image.jp2"
    with rasterio.open(image, "w", driver="JP2OpenJPEG", height=40, width=30, count=1, dtype="uint8") as target:
        target.write(np.arange(1200, dtype=np.uint8).reshape(1, 40, 30))
    data = image.read_bytes()
    stream = tmp_path / "bare.j2k"
    stream.write_bytes(data[data.index(b"\xff\x4f\xff\x51") :])
    for whole in (image, stream):
        check_whole_product(whole)
        good = whole.read_bytes()
        for length in (len(good) - 1, len(good) // 2, 70):
            whole.write_bytes(good[:length])
            with pytest.raises(RasterError, match=f"cut short or damaged: it has {length} bytes"):
                check_whole_product(whole)
    heights = tmp_path / "heights.IMG"
    heights.write_bytes(PDS3.ljust(800, b" ") + b"\0" * 4000)
    check_whole_product(heights)
    heights.write_bytes(PDS3)
    with pytest.raises(RasterError, match=r"of the 4800 bytes of 10 x 100 pixels"):
        check_whole_product(heights)
    label = tmp_path / "alone.LBL"
    label.write_bytes(PDS3.replace(b"= 3\r", b'= "D.IMG"\r').replace(b"OBJECT = IMAGE\r", b'FILE_NAME = "D.IMG"\r'))
    with pytest.raises(RasterError, match=r"label whose data, 'D.IMG', are not beside it"):
        check_whole_product(label)


def test_scenes_from_products_have_their_nulls_and_saturations_masked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="Utils.rasters")
    mars = {"crs": "+proj=eqc +R=3396190 +units=m", "transform": from_origin(0, 0, 2, 2)}
    earth = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 2, 2)}
    image = np.random.default_rng(0).integers(1, 256, (40, 30)).astype(np.uint8)
    image[10:14, 10:13] = 0
    for name, where, masked in (
        ("mars.jp2", mars, 12),
        ("earth.jp2", earth, 0),
        ("ESP_042328_1985_RED_B_01_ORTHO.jp2", earth, 12),
    ):
        kind = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
        with rasterio.open(
            tmp_path / name, "w", height=40, width=30, count=1, dtype="uint8", **kind, **where
        ) as target:
            target.write(image, 1)
        with open_scene(tmp_path / name) as scene:
            assert int((~scene.read(0, 0, 40, 30)[1]).sum()) == masked and scene.nodata == (0.0 if masked else None)
        with open_scene(tmp_path / name, suspect_voids=False) as scene:
            assert scene.read(0, 0, 40, 30)[1].all()
    assert caplog.text.count("0 is taken as null") == 2 and "another body than Earth" in caplog.text
    values = image.astype(np.float32)
    values[0, :5] = np.arange(0xFF7FFFFB, 0xFF800000, dtype=np.uint32).view(np.float32)
    cube = tmp_path / "ortho.cub"
    with rasterio.open(cube, "w", driver="ISIS3", height=40, width=30, count=1, dtype="float32", **mars) as target:
        target.write(values, 1)
    with open_scene(cube, suspect_voids=False) as scene:
        seen, valid = scene.read(0, 0, 40, 30)
        assert int((~valid).sum()) == 5 and not valid[0, :5].any()
        assert scene.stretch.low[0] >= 0.0 and seen.std() > 0.2
    cube.with_name("cut.jp2").write_bytes((tmp_path / "mars.jp2").read_bytes()[:-100])
    with pytest.raises(RasterError, match="cut short"):
        open_scene(cube.with_name("cut.jp2"))
