"""Every command, snippet and config of the pages for readers is run, at toy size; every file that they name exists.

A new command needs a case in ``checker_of``, or, where it cannot run in a test, a line in ``NOT_RUN`` with the reason.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import itertools
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from benchmarks import steps as benchmark_of_steps
from Modules.d3rsmde.autoencoders import AutoencoderShape, build_autoencoder
from Modules.d3rsmde.pipeline import D3RSMDE
from Modules.depth.enc_dec import EncDec
from Modules.stereo import CasMVSNet
from Systems import config_reference
from Systems.kinds import KINDS, kind_of
from tests.conftest import TEST, TEST_IDS, TRAINING, TRAINING_IDS, height_path, image_path, write_split
from tests.depth_models import write_depth_model
from tests.depth_sets import write_cityscapes, write_kitti, write_nyu
from tests.pages import (
    LANGUAGES,
    PROGRAMS,
    SHELL,
    Command,
    anchors,
    commands,
    fences,
    inline,
    links,
    pages,
    unfenced_commands,
)
from tests.paths import ROOT
from tests.stereo_sets import copy_set
from tests.toys import toy_model
from Utils.config.config_files import load_config, read_merged
from Utils.synthetic.terrain_scene import write_scene

Words = Sequence[str]
Checker = Callable[[Words], None]

# Commands that no test here runs, and why that is no gap.
NOT_RUN = {
    "source .venv/bin/activate": "changes the reader's shell; make and CI call .venv/bin/python by its path",
    "python -m benchmarks.stage_one --output output/stage_one --seeds 0 1 2": "takes many minutes; "
    "tests/benchmarks/test_stage_one.py runs it at toy size",
    "python -m benchmarks.real_ground --output results/real_ground --scene NAME image.tif truth.tif "
    "--factor 8 --noise 3": ("tests/benchmarks/test_real_ground.py runs it on a scene of its own"),
    "python evaluateScene.py --prediction metres.tif --truth lidar.tif --output results/aligned --coregister": (
        "64 pixels are too few for a shift to be found; tests/Utils/scenes/test_coregistration.py has larger ground"
    ),
    "python -m benchmarks.synthetic_ground --output results/synthetic_ground --tiles FOLDER "
    "--model output/Demo/diffusion/model": "tests/benchmarks/test_synthetic_ground.py runs it on tiles of its own",
    "python -m benchmarks.real_ground --output results/constants --tiles FOLDER 4 --synthetic 3 --derive": (
        "takes many minutes; tests/benchmarks/test_real_ground.py runs it on one scene of each kind"
    ),
    "python trainDiffusion.py --config Config/Diffusion/DEM_train.json": (
        "tests/Systems/d3rsmde/test_dem_prior.py trains and predicts at toy size"
    ),
    "python -m benchmarks.real_ground --output results/real_ground --scene NAME image.tif truth.tif "
    "--model output/Diffusion/DEM": "tests/benchmarks/test_real_ground.py runs it on a scene of its own",
    "python predict.py --model output/Diffusion/DEM --input scene.tif --output height.tif --reference dem.tif": (
        "tests/Systems/d3rsmde/test_dem_prior.py runs it after training"
    ),
    "python -m Utils.data.stereo.convert_whu --input WHU_MVS_dataset --output Dataset/BASE_DATA_DIR/WHU_MVS": (
        "tests/Utils/data/stereo/test_convert_whu.py converts a raw release"
    ),
    "python -m Systems.audit --dataset Dataset/BASE_DATA_DIR/WHU_MVS --config "
    "Config/Stereo/WHU_MVS_CasMVSNet_train.json": "tests/Utils/data/stereo/test_stereo_audit.py audits such a dataset",
    "python -m Utils.rasters.rational.frames --table frames.csv --crs EPSG:32651 --heights 50,120 --output rpcs "
    "--undistort": "tests/Utils/rasters/test_frames_as_rpc.py does so with frames of its own",
    "python predictStereo.py --images a.tif b.tif --output dsm.tif --preview --report": (
        "tests/scripts/test_predict_stereo.py runs it on pictures of known ground"
    ),
    "python predictStereo.py --images a.tif b.tif c.tif --output dsm.tif --heights 100,600 --points dsm.ply": (
        "tests/scripts/test_predict_stereo.py runs it on pictures of known ground"
    ),
    "python predictStereo.py --dataset Dataset/BASE_DATA_DIR/WHU_MVS/test --output maps --model output/WHU_MVS/model "
    "--dsm dsm.tif": "tests/scripts/test_predict_stereo_folder.py runs it on synthetic folders",
    **dict.fromkeys(
        (
            "python predict.py --model output/LandCover --input scene.tif --output classes.tif "
            "--relative-depth dsm.tif --preview",
            "python predict.py --model output/LandCover --input scene.tif --output classes.tif "
            "--depth-model depth-anything/Depth-Anything-V2-Small-hf --polygons",
            "python evaluateScene.py --prediction classes.tif --truth labels.tif --output results/classes",
        ),
        "tests/scripts/test_class_scenes.py draws and scores classes of a scene of its own",
    ),
    "python -m Systems.segmentation.ablation --train Config/Segmentation/LoveDA_U2R_convnext_b_s_train.json "
    "--evaluate Config/Segmentation/LoveDA_U2R_convnext_b_s_evaluate.json --seeds 0 1 2 --output results/ablation": (
        "tests/Systems/segmentation/test_demo.py runs it in the demo"
    ),
    "python -m Systems.segmentation.ablation --train Config/Demo/segmentation_self_training_train.json "
    "--evaluate Config/Demo/segmentation_evaluate.json --seeds 0 1 --variants image true image_taught true_taught "
    "--output results/Demo/self_training": (
        "takes minutes; tests/scripts/test_segmentation_scripts.py trains so at toy size"
    ),
    "python -m Systems.mars.products list --output HiRISE --limit 5": "tests/Systems/mars/test_products.py does",
    "python -m Systems.mars.products download --output HiRISE --grid C --limit 5": (
        "tests/Systems/mars/test_products.py downloads from a server of its own"
    ),
    "python -m Systems.mars.products check --output HiRISE": "tests/Systems/mars/test_products.py checks downloads",
    "python prepareMars.py --products HiRISE --output Dataset/BASE_DATA_DIR/Mars": (
        "tests/Systems/mars/test_preparing.py prepares products of its own"
    ),
    "python prepareMars.py --dtm dtm.tif --ortho ortho.jp2 --output Dataset/BASE_DATA_DIR/MyMars --height-reference "
    "areoid": "tests/Systems/mars/test_preparing.py prepares products of its own",
    "pip install -r requirements-export.txt": "changes the environment",
    "pip install .": "changes the environment; tests/house/test_wheel.py does so in a new one",
    "d3 --help": "tests/house/test_wheel.py calls it, installed",
    "d3 predict --model output/Demo/diffusion/model --input scene.tif --output height.tif": (
        "tests/house/test_wheel.py calls it, installed"
    ),
    "python predict.py --model OWNER/NAME --input scene.tif --output height.tif": (
        "tests/Modules/d3rsmde/test_hub_models.py opens models from a stand-in of the hub"
    ),
    "python -m Utils.training.runs.model_card --run output/Demo/diffusion --results results/Demo/diffusion "
    "--licence apache-2.0": "tests/Utils/training/test_model_card.py writes cards with results of its own",
    "hf auth login": "asks for a token of the hub",
    "python -m Systems.push --model output/Demo/diffusion/model --name OWNER/NAME --private": (
        "tests/Modules/d3rsmde/test_hub_models.py sends models to a stand-in of the hub"
    ),
    "python -m Systems.export --model output/Demo/diffusion/model --output height.onnx": (
        "takes minutes on a busy machine; tests/Systems/export does so at toy size"
    ),
    "python -m Systems.export --model output/Demo/vit/model --output coarse.onnx --side 512 --resolution 0.5": (
        "takes minutes on a busy machine; tests/Systems/export does so at toy size"
    ),
    "python -m benchmarks.exported --model output/Demo/diffusion/model --onnx height.onnx --size 1x128x128 "
    "--size 4x128x128": "needs what an export wrote; tests/Systems/export runs it on such a file",
    **dict.fromkeys(
        (
            "python trainDepth.py --config Config/Mars/HiRISE_train.json --dry-run",
            "python trainDepth.py --config Config/Mars/HiRISE_train.json",
            "python trainDepth.py --config Config/Mars/HiRISE_folds_train.json",
            "python evaluateDepth.py --config Config/Mars/HiRISE_evaluate.json",
            "python evaluateDepth.py --config Config/Mars/HiRISE_folds_evaluate.json",
            "python trainDiffusion.py --config Config/Diffusion/HiRISE_train.json",
        ),
        "tests/scripts/test_mars_training.py trains and scores the small one of these configs on tiles of its own",
    ),
    **dict.fromkeys(
        (
            "python predict.py --model output/Mars/HiRISE --input ortho.JP2 --output relief.tif --tilt --preview",
            "python predict.py --model output/Mars/HiRISE --input ortho.JP2 --output heights.tif --reference mola.tif",
        ),
        "tests/Systems/mars/test_demo.py draws a whole image and ties it; tests/Utils/scenes/test_planetary_tie.py too",
    ),
    "python app.py": "serves until it is stopped; tests/Systems/app drives the page and the API",
    "python app.py --models output FOLDER --host 0.0.0.0 --port 8000 --no-page": "the same",
    "python -m benchmarks.app_load --output results/app_load": "takes minutes; tests/Systems/app sends them too",
    "python -m benchmarks.loss": "takes minutes as it is; tests/Modules/losses/test_losses.py runs it on small maps",
}
CONFIG_SCRIPTS = tuple(
    f"{verb}{kind}.py"
    for verb in ("train", "evaluate")
    for kind in ("ViT", "Diffusion", "Depth", "Segmentation", "Stereo")
)
# Names that stand for a reader's own, or that a run writes.
PLACEHOLDERS = ("<", "MyTiles", "MyGround", "Dataset/BASE_DATA_DIR", "Dataset/splitTextFiles")
_FENCED = [command for page in pages() for command in commands(page)]
COMMANDS = list({command.text: command for command in _FENCED}.values())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shared_dataset: Path, vit_run: Path, diffusion_run: Path) -> Path:
    """A folder with all files that the pages' commands name, at toy size: there the commands run as they are."""
    place = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "Config", place / "Config")
    for name, config in shown_configs().items():
        (place / name).write_text(config, encoding="utf-8")
    for name in ("Demo", "ImageToDEM-J_K"):
        (place / "Dataset" / "BASE_DATA_DIR" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "Dataset" / "BASE_DATA_DIR" / name).symlink_to(shared_dataset)
    _lay_out_own_data(place / "Dataset" / "BASE_DATA_DIR" / "MyTiles", shared_dataset)
    for name in ("ViT/J_K", "ViT/SA", "ViT/MyTiles", "MyTiles/vit", "Demo/vit"):
        shutil.copytree(vit_run, place / "output" / name)
        (place / "output" / name / "priors").symlink_to(shared_dataset)
    for name in ("Diffusion/J_K", "Diffusion/MyTiles", "MyTiles/diffusion", "Demo/diffusion"):
        shutil.copytree(diffusion_run, place / "output" / name)
    depth = EncDec(backbone="test_resnet", widths=[16, 8], target="summit", max_depth=450.0)
    for name in ("Depth/MyGround", "MyTiles/depth"):
        depth.save_pretrained(place / "output" / name / "model")
    light = place / "output" / "Demo" / "diffusion_light"
    toy_model("AutoencoderTiny").save_pretrained(light)
    both_stages = place / "output" / "Demo" / "diffusion" / "model"
    for model in (both_stages, place / "output" / "Diffusion" / "MyTiles" / "model"):
        shutil.rmtree(model)
        toy_model().save_pretrained(model)
    # The demo's light autoencoder learns from this one, so the latents must be of one kind.
    teacher = AutoencoderShape((8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4)
    build_autoencoder("AutoencoderKL", teacher).save_pretrained(both_stages.parent / "frozen_vae")
    (place / "FOLDER").symlink_to(both_stages)
    shutil.copy(image_path(shared_dataset, TEST_IDS[0], TEST), place / "tile.png")
    _lay_out_scene(place)
    scenes = copy_set(place / "stereo", views=5)
    (place / "Dataset" / "BASE_DATA_DIR" / "WHU_MVS").symlink_to(scenes)
    CasMVSNet(base=4).save_pretrained(place / "output" / "Stereo" / "WHU_MVS_CasMVSNet" / "model")
    write_depth_model(place / "depth-anything" / "Depth-Anything-V2-Small-hf")  # in place of the one on the hub
    _lay_out_depth(place)
    return place


def _lay_out_own_data(folder: Path, dataset: Path) -> None:
    """A dataset as it is cut, with a split file for each of two folds."""
    folder.mkdir()
    for part in (TRAINING, TEST):
        (folder / part).symlink_to(dataset / part)
    for number in (1, 2):
        write_split(folder / "splits" / f"fold-{number}.txt", *TRAINING_IDS[number - 1 :: 2])
    rows = [
        f"{tile},{image_path(Path(), tile, part)},{height_path(Path(), tile, part)},{name},{fold}\n"
        for part, name, ids in ((TRAINING, "train", TRAINING_IDS), (TEST, "test", TEST_IDS))
        for fold, tile in enumerate(ids)
    ]
    (folder / "tiles.csv").write_text("".join(["id,image,height,part,fold\n", *rows]))


def _lay_out_depth(place: Path) -> None:
    """The published depth datasets, and a network for each."""
    datasets = place / "Dataset" / "BASE_DATA_DIR"
    write_nyu(datasets / "NYU", test_size=(480, 640))
    write_kitti(datasets / "KITTI")
    write_cityscapes(datasets / "Cityscapes")
    for name, target in (("NYU", "relative"), ("KITTI", "metres"), ("Cityscapes", "metres"), ("MyTiles", "summit")):
        network = EncDec("test_resnet", widths=(8,), target=target, max_depth=None if target == "relative" else 80.0)
        network.save_pretrained(place / "output" / "Depth" / name / "model")


def _lay_out_scene(place: Path) -> None:
    # Of ground that the untrained model of these tests does not draw upside down.
    scene = write_scene(place / "made", 64, 13)
    for source, names in (
        (scene.image, ["scene.tif", "ortho.tif"]),
        (scene.truth, ["lidar.tif", "height.tif", "metres.tif"]),
        (scene.reference, ["dem.tif"]),
        (scene.points, ["icesat.csv"]),
    ):
        for name in names:
            shutil.copy(source, place / name)
    with rasterio.open(scene.image) as source:
        bands, profile = source.read([1, 2, 3, 1]), source.profile
    for folder in ("scenes", "images"):
        (place / folder).mkdir()
    shutil.copy(place / "tile.png", place / "images")
    kept = {key: profile[key] for key in ("width", "height", "crs", "transform")}
    for name in ("east.jp2", "west.jp2"):
        with rasterio.open(
            place / "scenes" / name, "w", driver="JP2OpenJPEG", count=4, dtype="uint8", **kept
        ) as target:
            target.write(bands)


def shown_configs() -> dict[str, str]:
    """The configs that the pages show, by the file name that the text before them gives."""
    found: dict[str, str] = {}
    for page in pages():
        for block in fences(page):
            if block.language == "json":
                names = re.findall(r"`(Config/[\w/]+\.json)`", block.before)
                assert names, f"{block.page}: say in front of this config which file of Config/ it is: {block.text}"
                assert found.setdefault(names[-1], block.text) == block.text, f"{names[-1]} is shown in two ways"
    return found


@pytest.fixture
def in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.text[:60]}")
def test_every_command_is_run(command: Command, in_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if command.text in NOT_RUN:
        return
    checker = checker_of(command.words)
    assert checker is not None, f"{command.page}: nothing runs '{command.text}'; see the top of this file"
    # One command is for a GPU; it only lists what it would do here.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in command.words)
    checker(command.words)


def checker_of(words: Words) -> Checker | None:
    """What runs a command in ``place``; None where nothing does."""
    match words:
        case ["python", script, *rest] if script in CONFIG_SCRIPTS:
            return _resumed if "--resume" in rest else _dry_run
        case ["python", "predict.py", *_]:
            return _predicted
        case ["python", "evaluateScene.py", *_] | ["python", "-m", "Systems.audit" | "Utils.training.runs", *_]:
            return _run
        case ["python", "-m", "Utils.data.cut", *_]:
            return _cut
        case ["python", "-m", "Systems.relative_depth", *_]:
            return _drawn
        case ["python", "-m", "Utils.data.splits", *_]:
            return _splits_written
        case ["python", "-m", "benchmarks", *_]:
            return lambda words: _run([*words, "--list"])
        case ["python", "-m", "benchmarks.switches", *_]:
            return lambda words: _run([*words, "--tiles", "1", "--repeats", "1"])
        case ["python", "-m", "benchmarks.reconstruction", *_]:
            return _run
        case ["python", "-m", "ruff", *_]:
            return _line_of_the_makefile
        case ["python", "-m", "mypy", *_]:
            return _command_of_the_types_test
        case ["python", "-m", "pytest", *_]:
            return _tests_exist
        case ["make", _]:
            return _made_dry
        case ["accelerate", "launch", *_] | ["torchrun", *_]:
            return _launched_dry
        case ["tensorboard", *_]:
            return _tensorboard_configured
    return None


def _run(words: Words) -> None:
    """Run ``python SCRIPT ...`` or ``python -m MODULE ...`` in this process."""
    name, arguments = (words[2], words[3:]) if words[1] == "-m" else (words[1].removesuffix(".py"), words[2:])
    module = importlib.import_module(name)
    module = importlib.import_module(f"{name}.__main__") if hasattr(module, "__path__") else module
    assert module.main(list(arguments)) == 0


def _dry_run(words: Words) -> None:
    before = sorted(Path().rglob("*"))
    # The toy tiles are smaller than the crops of the demo's.
    smaller = ["--set", "vae_crop_size=0"] if words[1] == "trainDiffusion.py" else []
    _run([*words, *smaller, "--dry-run"])
    assert sorted(Path().rglob("*")) == before


def _resumed(words: Words) -> None:
    log = Path(words[-1], "final", "log.jsonl").read_text()
    _run(words)
    assert Path(words[-1], "final", "log.jsonl").read_text() == log  # nothing was left to do


def _predicted(words: Words) -> None:
    output = Path(words[words.index("--output") + 1])
    output.unlink(missing_ok=True) if output.suffix else None
    _run([*words, "--tile-size", "32"])
    assert output.is_file() or list(output.glob("*.tif"))


def _drawn(words: Words) -> None:
    _run(words)
    assert len(list(Path(words[words.index("--output") + 1]).glob("*.png"))) == len(list(Path("images").iterdir()))


def _cut(words: Words) -> None:
    """Into another folder: that of the command is there already."""
    output = Path("Dataset/BASE_DATA_DIR/Cut")
    shutil.rmtree(output, ignore_errors=True)
    _run([*words, "--size", "8", "--output", str(output)])
    if "--dry-run" in words:
        assert not output.exists()
    else:
        assert list(output.glob("*/*/tile_*.png")) and (output / "splits" / "fold-5.txt").is_file()


def _splits_written(words: Words) -> None:
    _run(words)
    name, folds = words[words.index("--name") + 1], int(words[words.index("--folds") + 1])
    assert len(list(Path("Dataset/splitTextFiles", name).glob(f"{name}stage1-*.txt"))) == folds


def _command_of_the_types_test(words: Words) -> None:
    quoted = ", ".join(f'"{word}"' for word in words[1:])
    assert f"[sys.executable, {quoted}]" in (ROOT / "tests" / "house" / "test_types.py").read_text(encoding="utf-8")


def _line_of_the_makefile(words: Words) -> None:
    assert f"\t$(BIN)/{' '.join(words)}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def _tests_exist(words: Words) -> None:
    """CI runs all tests, but for those that are marked slow."""
    markers = [word for before, word in itertools.pairwise(words) if before == "-m"][1:]
    assert all(re.search(rf'markers = .*"{marker}:', (ROOT / "pyproject.toml").read_text()) for marker in markers)
    paths = [word for word in words[3:] if "/" in word]
    assert paths and all((ROOT / path).exists() for path in paths)


def _made_dry(words: Words) -> None:
    done = subprocess.run(["make", "--dry-run", words[1]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # The demos are run small in files named test_demo.py; CI calls the tests.
    said = {
        "demo": "-m Systems.d3rsmde.demo",
        "demo-depth": "-m Systems.depth.demo",
        "demo-segmentation": "-m Systems.segmentation.demo",
        "demo-mars": "-m Systems.mars.demo",
        "demo-stereo": "-m Systems.stereo.demo",
        "app": "python app.py",
        "test": "-m pytest",
    }
    assert said.get(words[1], "") in done.stdout


def _launched_dry(words: Words) -> None:
    """The launcher's own options, then the script; that launchers work is shown in test_processes.py."""
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        given = get_args_parser().parse_args(list(words[1:]))
    else:
        from accelerate.commands.launch import launch_command_parser

        given = launch_command_parser().parse_args(list(words[2:]))
    _dry_run(["python", given.training_script, *given.training_script_args])


def _tensorboard_configured(words: Words) -> None:
    """It would serve until it is stopped."""
    from tensorboard.program import TensorBoard

    TensorBoard().configure(argv=list(words))


def test_no_exception_is_stale() -> None:
    written = {command.text for command in COMMANDS}
    assert set(NOT_RUN) <= written
    for page in pages():
        assert not unfenced_commands(page), f"{page.name}: put this into a fence"
        for block in fences(page):
            assert block.language in LANGUAGES, f"{block.page}: nothing checks a fence of '{block.language}'"
            if block.language not in SHELL:
                first_words = [line.split()[0] for line in block.text.splitlines() if line.strip()]
                assert not set(first_words) & set(PROGRAMS), f"{block.page}: commands in a fence of {block.language}"


@pytest.mark.parametrize("language", SHELL)
@pytest.mark.parametrize("marks", ["```", "~~~"])
def test_a_new_command_is_noticed(marks: str, language: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    prompt = "$ " if language == "console" else ""
    lines = ["python unknown.py \\", "    --flag", "gdalwarp a.tif b.tif", "make test && curl example.org  # why"]
    text = "".join(f"{'' if line.startswith(' ') else prompt}{line}\n" for line in lines)
    page.write_text(f"Text.\n\n{marks}{language}\n{text}{marks}\n", encoding="utf-8")
    found = [command.words for command in commands(page)]
    known = ("make", "test")
    assert found == [("python", "unknown.py", "--flag"), ("gdalwarp", "a.tif", "b.tif"), known, ("curl", "example.org")]
    assert [words for words in found if checker_of(words) is not None] == [known]


def test_configs_that_are_shown_can_be_loaded(in_place: Path) -> None:
    assert shown_configs()
    for name in shown_configs():
        keys = read_merged(Path(name))[0]
        kinds = [kind for kind in KINDS if kind.folder == Path(name).parent.name]
        kinds = [
            kind for kind in kinds if ("checkpoint_path" in kind.config.model_fields) == ("checkpoint_path" in keys)
        ]
        load_config(Path(name), (kinds[0] if len(kinds) == 1 else kind_of(keys)).config)


SNIPPETS = [block for page in pages() for block in fences(page) if block.language == "python"]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.page)
def test_snippets_run(snippet, in_place: Path) -> None:
    names: dict[str, object] = {}
    exec(snippet.text, names)
    if snippet.page == "README.md":
        height, image = names["height"], np.asarray(Image.open("tile.png"))
        assert isinstance(names["model"], D3RSMDE)
        assert isinstance(height, np.ndarray) and height.dtype == np.float32
        assert height.shape == image.shape[:2] and 0.0 <= height.min() <= height.max() <= 1.0


INLINE = sorted({text for page in pages() for text in inline(page)})
CALLS = [text for text in INLINE if re.match(r"(python |make |\w+\.py --)", text)]


@pytest.mark.parametrize("text", CALLS)
def test_commands_within_sentences_exist(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Their program exists, a test runs it, and it knows their options."""
    words = shlex.split(text)
    if words[0] == "make":
        return _made_dry(words)
    words = words if words[0] == "python" else ["python", *words]
    name = words[2] if words[1] == "-m" else words[1].removesuffix(".py")
    assert importlib.util.find_spec(name), text
    if list(words[:3]) not in [list(command.words[:3]) for command in COMMANDS]:
        leaf = name.rpartition(".")[2]
        tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
        assert re.search(rf"import .*\b{leaf}\b|from {re.escape(name)}\b", tests), f"no test runs {name}"
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    if options:
        with pytest.raises(SystemExit):
            _run([*words[: 3 if words[1] == "-m" else 2], "--help"])
        assert options <= set(re.findall(r"--[\w-]+", capsys.readouterr().out))


def test_the_benchmark_of_steps_fits_the_demo(in_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scripts as dry runs: options, configs and the demo's folders agree."""
    plain = benchmark_of_steps._run
    scores = {key: {"mean": 1.0} for key in benchmark_of_steps._SCORES}

    def dry(script, config, settings) -> None:
        if "evaluate" in config:
            results = Path(settings["output_dir"])
            results.mkdir(parents=True)
            document = {"summary": {"coarse": scores, "refined": scores}, "change": scores, "seconds_per_tile": 1.0}
            (results / "metrics.json").write_text(json.dumps(document))
            settings = {**settings, "checkpoint_path": "output/Demo/diffusion"}
        else:
            settings = {**settings, "vae_crop_size": 0}
        plain(lambda arguments: script([*arguments, "--dry-run"]), config, settings)

    monkeypatch.setattr(benchmark_of_steps, "_run", dry)
    assert benchmark_of_steps.main(["--seed", "1", "--output", "output/steps"]) == 0


def test_the_page_of_config_keys_is_fresh() -> None:
    assert config_reference.main(["--check"]) == 0


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_links_lead_somewhere() -> None:
    for page in [*pages(), ROOT / "output" / "README.md", ROOT / "results" / "README.md"]:
        for link in links(page):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.is_file() and target.is_relative_to(ROOT), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_files_that_are_named_exist() -> None:
    """A path into a folder of the repository, and a Python file or test by its name alone."""
    ours = [path.relative_to(ROOT).as_posix() for top in _folders() for path in (ROOT / top).rglob("*")]
    ours += [path.name for path in ROOT.iterdir()]
    names = {Path(name).name for name in ours}
    for page in pages():
        for text in inline(page):
            for word in text.split():
                word = word.rstrip("/.,")
                if any(mark in word for mark in PLACEHOLDERS):
                    continue
                if re.match(rf"({'|'.join(_folders())})/", word):
                    assert fnmatch.filter(ours, word), f"{page.name}: {word}"
                elif re.fullmatch(r"\w+\.py", word):
                    assert word in names, f"{page.name}: {word}"


def _folders() -> list[str]:
    return [name for name in ("Config", "Dataset", "Modules", "Systems", "Utils", "benchmarks", "docs", "tests")]


def test_tests_that_are_named_exist() -> None:
    """``-k`` in the page of faults selects tests by a part of their names."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for page in pages():
        for text in inline(page):
            for selection in re.findall(r"-k (\"[^\"]+\"|\S+)", text):
                for part in selection.strip('"').split(" or "):
                    assert re.search(rf"def test_\w*{part}|id=\"[^\"]*{part}", tests), f"{page.name}: -k {part}"


def test_nothing_needs_files_that_a_stranger_lacks() -> None:
    for page in pages():
        text = page.read_text(encoding="utf-8")
        assert "../shared" not in text and str(ROOT) not in text, page.name
