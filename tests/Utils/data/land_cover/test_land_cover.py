"""Land-cover tiles: found by counting, read, checked, and moved together while only colours change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import write_raster
from tests.land_cover_sets import tile_classes, write_loveda, write_tile
from tests.paths import SHARED
from Utils.config.land_cover_keys import AugmentationSection
from Utils.core.errors import UserError
from Utils.data.land_cover.class_table import LOVEDA
from Utils.data.land_cover.land_cover_check import check_land_cover
from Utils.data.land_cover.land_cover_dataset import HowRead, LandCoverDataset, read_depth
from Utils.data.land_cover.listing import LandCoverFiles, domains_of, has_masks, list_land_cover, with_shuffled_depth
from Utils.data.sample import IGNORED_LABEL

HOW = HowRead(LOVEDA)
REAL = SHARED / "real_data" / "loveda"


@pytest.fixture(scope="module")
def loveda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains of three parts; read only."""
    return write_loveda(tmp_path_factory.mktemp("loveda"))


def test_files_are_counted(loveda: Path) -> None:
    assert domains_of(loveda, "Train") == ["Rural", "Urban"] and domains_of(loveda, "Nothing") == []
    both = list_land_cover(loveda, "Train", ["Urban", "Rural"], "depth_png")
    assert list(both) == ["Urban-0", "Urban-1", "Urban-2", "Rural-0", "Rural-1", "Rural-2"]
    assert both["Rural-1"].depth == loveda / "Train" / "Rural" / "depth_png" / "1.png"
    test = list_land_cover(loveda, "Test", ["Urban"], masks=False)
    assert len(test) == 2 and test["Urban-0"].mask is None and test["Urban-0"].depth is None


def test_what_is_missing_is_named_with_its_remedy(loveda: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(loveda / "Val", tmp_path / "Val").parent
    (copy / "Val" / "Urban" / "depth_png" / "1.png").unlink()
    with pytest.raises(UserError) as error:
        list_land_cover(copy, "Val", ["Urban"], "depth_png")
    assert "1 of 2 have none" in str(error.value) and "python -m Systems.relative_depth" in str(error.value)
    (copy / "Val" / "Urban" / "masks_png" / "0.png").unlink()
    with pytest.raises(UserError, match=r"0\.png' has no mask \(1 of 2"):
        list_land_cover(copy, "Val", ["Urban"])
    with pytest.raises(UserError, match="no domain 'Forest' in its part Val: it has Rural, Urban"):
        list_land_cover(copy, "Val", ["Forest"])
    with pytest.raises(UserError, match="no images in"):
        list_land_cover(copy, "Train", ["Urban"])


def test_a_sample_is_what_its_files_hold(loveda: Path) -> None:
    files = list_land_cover(loveda, "Train", ["Urban"], "depth_png")
    sample = LandCoverDataset(files, list(files), HOW)[1]
    labels = torch.from_numpy(tile_classes(1).astype(np.int64))
    labels[0, :8] = IGNORED_LABEL
    assert torch.equal(sample["label"], labels) and torch.equal(sample["valid"][0], labels != IGNORED_LABEL)
    assert sample["image"].shape == (3, 64, 64) and 0 <= sample["image"].min() and sample["image"].max() <= 1
    heights = sample["depth"][0]
    assert (heights.min(), heights.max()) == (0, 1)
    assert heights[labels == 1].mean() > heights[labels == 2].mean() + 0.3 or not (labels == 1).any()


def test_depth_is_stretched_by_percentiles_and_turned_by_what_its_file_says(tmp_path: Path) -> None:
    values = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    path = tmp_path / "map.tif"
    write_raster(path, values)
    found = read_depth(path)
    low, high = np.percentile(values, [2, 98])
    np.testing.assert_allclose(found, np.clip((values - low) / (high - low), 0, 1), atol=1e-6)
    np.testing.assert_allclose(read_depth(path, "depth"), 1 - found, atol=1e-6)
    path.with_suffix(".json").write_text(json.dumps({"polarity": "higher values are higher ground, nearer"}))
    np.testing.assert_array_equal(read_depth(path), found)
    write_raster(tmp_path / "flat.tif", np.full((4, 4), 7, np.uint8))
    assert not read_depth(tmp_path / "flat.tif").any() and not read_depth(tmp_path / "flat.tif", "depth").any()


@pytest.mark.parametrize(
    "options",
    [
        {"crop": None},
        {"crop": 24, "scales": [1.0, 1.0]},
        {"crop": 24, "scales": [0.5, 2.0]},
        {"crop": 96, "scales": [0.7, 0.7]},  # larger than the tile
        {"crop": 24, "scales": [1.0, 1.0], "grey": 1.0, "blur": 1.0},
    ],
)
def test_image_mask_and_depth_stay_together_under_every_transform(options: Any, tmp_path: Path) -> None:
    """Each pixel of image and map holds the class of its mask: they rise and fall together."""
    labels = np.kron(np.random.default_rng(0).integers(0, 7, (8, 8)), np.ones((8, 8))).astype(np.uint8)
    write_raster(tmp_path / "image.png", np.stack([labels * 36] * 3).astype(np.uint8))
    write_raster(tmp_path / "mask.png", labels + 1)
    write_raster(tmp_path / "depth.tif", labels.astype(np.float32))
    files = {"t": LandCoverFiles("a", tmp_path / "image.png", tmp_path / "mask.png", tmp_path / "depth.tif")}
    quiet = {"colours": "none", "depth_jitter": False, "depth_drop": 0.0, "largest_share": 1.0}
    dataset = LandCoverDataset(
        files, ["t"], HOW, AugmentationSection(**(quiet | options)), flips=["horizontal", "vertical"], seed=5
    )
    seen = set()
    for epoch in range(12):
        dataset.epoch = epoch
        sample = dataset[0]
        label, image, depth = sample["label"], sample["image"][0] * 255 / 36, sample["depth"][0] * 6
        assert sample["valid"].shape[-2:] == label.shape == depth.shape == image.shape
        known = label != IGNORED_LABEL
        assert torch.equal(sample["valid"][0], known) and known.any()
        for values in (image, depth):
            # Resizing and blur mix pixels at the edges of blocks; a transform that was missed leaves nearly 0.
            assert np.corrcoef(values[known], label[known])[0, 1] > 0.8
        seen.add(label.numpy().tobytes())
    assert len(seen) > 3, "other places each time"


def test_colours_change_and_nothing_else_does(loveda: Path) -> None:
    files = list_land_cover(loveda, "Train", ["Urban"], "depth_png")
    still = {"crop": None, "depth_jitter": False, "depth_drop": 0.0}
    plain, strong = (
        LandCoverDataset(files, ["Urban-0"], HOW, AugmentationSection(**still, colours=change))[0]  # type: ignore[arg-type]
        for change in ("none", "strong")
    )
    assert torch.equal(plain["depth"], strong["depth"]) and torch.equal(plain["label"], strong["label"])
    assert (plain["image"] - strong["image"]).abs().mean() > 0.02
    assert 0 <= strong["image"].min() and strong["image"].max() <= 1


def test_depth_is_jittered_and_dropped_alone(loveda: Path) -> None:
    files = list_land_cover(loveda, "Train", ["Urban"], "depth_png")
    section = AugmentationSection(crop=None, colours="none", depth_drop=0.5)
    dataset = LandCoverDataset(files, ["Urban-0"], HOW, section)
    whole = LandCoverDataset(files, ["Urban-0"], HOW)[0]
    dropped, changed = 0, 0
    for epoch in range(20):
        dataset.epoch = epoch
        sample = dataset[0]
        assert torch.equal(sample["image"], whole["image"])
        if not sample["depth"].any():
            dropped += 1
        elif not torch.equal(sample["depth"], whole["depth"]):
            changed += 1
            assert 0 <= sample["depth"].min() and sample["depth"].max() <= 1
    assert 4 <= dropped <= 16 and changed == 20 - dropped


def test_controls_stand_in_the_place_of_depth(loveda: Path) -> None:
    files = list_land_cover(loveda, "Train", ["Urban"], "depth_png")
    dataset = {
        source: LandCoverDataset(files, list(files), HowRead(LOVEDA, source))  # type: ignore[arg-type]
        for source in ("true", "constant", "grey")
    }
    assert not dataset["constant"][0]["depth"].any()
    sample = dataset["grey"][0]
    expected = 0.299 * sample["image"][0] + 0.587 * sample["image"][1] + 0.114 * sample["image"][2]
    torch.testing.assert_close(sample["depth"][0], expected)
    assert "depth" not in LandCoverDataset(files, list(files), HowRead(LOVEDA, None))[0]
    shuffled = with_shuffled_depth(files, [2, 0, 1])
    assert all(shuffled[name].depth != each.depth for name, each in files.items())
    assert {each.depth for each in shuffled.values()} == {each.depth for each in files.values()}
    assert all(shuffled[name].image == each.image for name, each in files.items())


def test_no_class_has_more_than_its_share_of_a_crop(tmp_path: Path) -> None:
    """Nine tenths are one class: most squares of 32 pixels hold nothing else, and few are served."""
    labels = np.zeros((128, 128), np.uint8)
    labels[:40, :40] = 1
    write_raster(tmp_path / "image.png", np.stack([labels] * 3))
    write_raster(tmp_path / "mask.png", labels + 1)
    files = {"t": LandCoverFiles("a", tmp_path / "image.png", tmp_path / "mask.png")}
    shares = {}
    for most in (1.0, 0.75):
        section = AugmentationSection(crop=32, scales=[1.0, 1.0], largest_share=most, colours="none")
        dataset = LandCoverDataset(files, ["t"], HowRead(LOVEDA, None), section)
        pure = 0
        for epoch in range(40):
            dataset.epoch = epoch
            pure += int(dataset[0]["label"].float().mean() in (0.0, 1.0))
        shares[most] = pure / 40
    assert shares[1.0] > 0.6 and shares[0.75] < shares[1.0] - 0.25


def test_tiles_are_checked(loveda: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = list_land_cover(loveda, "Train", ["Urban"], "depth_png")
    check = check_land_cover(files, list(files), HOW, one_size=True)
    assert check.size == (64, 64) and check.pixels.sum() == 3 * (64 * 64 - 8)
    assert "3 of 7 classes occur in none of the tiles: barren, forest, agriculture" in caplog.text
    folder = tmp_path / "Train" / "Urban"
    write_tile(folder, "0", 0)
    write_tile(folder, "1", 1)
    write_raster(folder / "masks_png" / "1.png", np.zeros((64, 64), np.uint8))
    mine = list_land_cover(tmp_path, "Train", ["Urban"], "depth_png")
    assert check_land_cover(mine, list(mine), HOW, True).empty == ["Urban-1"]
    with pytest.raises(UserError, match=r"no pixel of the 1 masks.*1\.png', is labelled"):
        check_land_cover(mine, ["Urban-1"], HOW, True)
    for name, bands, words in (
        ("masks_png/1.png", np.ones((64, 60), np.uint8), "is 60 x 64 pixels but"),
        ("masks_png/1.png", np.full((64, 64), 9, np.uint8), "values outside of the class table: 9 (4096 pixels)"),
    ):
        write_raster(folder / name, bands)
        with pytest.raises(UserError) as error:
            check_land_cover(mine, list(mine), HOW, True)
        assert words in str(error.value) and name.split("/")[1] in str(error.value)
    write_tile(folder, "1", 1, size=32)
    with pytest.raises(UserError, match="whole tiles have one size"):
        check_land_cover(mine, list(mine), HOW, True)
    assert check_land_cover(mine, list(mine), HOW, False).size == (32, 32)


@pytest.mark.skipif(not REAL.is_dir(), reason="the three real images are not here")
def test_real_images_are_read() -> None:
    """Three of LoveDA's; their masks hold the values 1 to 7 alone."""
    files = list_land_cover(REAL, "Train", domains_of(REAL, "Train"))
    assert len(files) == 3
    check = check_land_cover(files, list(files), HowRead(LOVEDA, None), one_size=True)
    assert check.size == (1024, 1024) and check.pixels.sum() == 3 * 1024**2 and not check.with_gaps
    for each in files.values():
        assert each.mask is not None
        values = np.asarray(Image.open(each.mask))
        assert LOVEDA.decode(LOVEDA.encode(values)).tolist() == values.tolist()


def test_a_table_gives_what_the_folders_give(loveda: Path, tmp_path: Path) -> None:
    """Paths from its own folder or from root; every mistake names the line."""
    lines = ["id,image,mask,relative_depth,part,domain"]
    for part in ("Train", "Test"):
        for domain in ("Urban", "Rural"):
            for path in sorted((loveda / part / domain / "images_png").iterdir()):
                place = f"{part}/{domain}"
                mask = "" if part == "Test" else f"{place}/masks_png/{path.name}"
                cells = (path.stem, f"{place}/images_png/{path.name}", mask, f"{place}/depth_png/{path.name}")
                lines.append(",".join([*cells, part.lower(), domain]))
    table = tmp_path / "tiles.csv"

    def write(*changed: tuple[str, str]) -> None:
        text = "\n".join(lines)
        for old, new in changed:
            text = text.replace(old, new, 1)
        table.write_text(text, encoding="utf-8")

    write()
    for part, masks in (("Train", True), ("Test", False)):
        expected = list_land_cover(loveda, part, ["Urban"], "depth_png", masks)
        assert list_land_cover(table, part, ["Urban"], "any", masks, root=loveda) == expected
    assert domains_of(table, "Train") == ["Rural", "Urban"]
    assert has_masks(table, "Train", ["Urban"]) and not has_masks(table, "Test", ["Urban"])
    assert all(files.depth is None for files in list_land_cover(table, "Train", ["Rural"], root=loveda).values())
    first = lines[1]
    for changed, said in (
        (
            (first, first.replace("Train/Urban/depth_png/0.png", "")),
            r"line 2: no relative_depth.*Systems.relative_depth",
        ),
        ((first, first.replace("masks_png/0", "masks_png/9")), r"line 2: mask .* does not exist"),
        ((first, first.replace(",train,", ",training,")), r"line 2: part 'training'; write Train, Val or Test"),
        (
            (first, first.replace("Train/Urban/masks_png/0.png", "")),
            r"line 2: no mask, and only tiles of the part Test",
        ),
        ((lines[2], first), r"id 0 of Urban stands in line 2 and again in line 3"),
        (("relative_depth", "depth"), r"column 'depth' is unknown"),
    ):
        write(changed)
        with pytest.raises(UserError, match=said):
            list_land_cover(table, "Train", ["Urban"], "any", root=loveda)
    write()
    with pytest.raises(UserError, match="has no domain 'Forest' in its part Train: it has Rural, Urban"):
        list_land_cover(table, "Train", ["Forest"], root=loveda)
