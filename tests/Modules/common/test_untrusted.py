"""Weights and models from strangers: no code runs, no memory is taken that they do not fill, no other file is read."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import evaluateDiffusion
import evaluateViT
import trainDiffusion
import trainViT
from Modules.common.plain_json import check_sizes, parse_json
from Modules.common.untrusted_weights import check_archive
from Modules.d3rsmde.ldm_checkpoint import load_ldm_autoencoder
from Systems.d3rsmde.build import VAE_FOLDER, build_coarse, build_vae, load_coarse, load_model, load_refiner
from Systems.d3rsmde.tasks.refiner_task import RefinerTask
from tests.conftest import small_diffusion, small_diffusion_evaluation, small_vit, small_vit_evaluation, write_config
from tests.launching import run
from tests.Modules.d3rsmde.test_ldm_checkpoint import small_state_dict
from tests.scripts.bench import one_error
from tests.Systems.d3rsmde.test_factory import evaluation, training, vit, write_checkpoint
from tests.toys import toy_coarse, toy_model, toy_vae
from Utils.core.errors import UserError
from Utils.training.checkpoint import FORMAT, HEADER_KEY

SCRIPTS: dict[str, Any] = {
    "trainViT": trainViT,
    "evaluateViT": evaluateViT,
    "trainDiffusion": trainDiffusion,
    "evaluateDiffusion": evaluateDiffusion,
}


class Trap:
    """Touches a file when a careless reader unpickles it."""

    def __init__(self, target: Path, by_shell: bool) -> None:
        self.target = target
        self.by_shell = by_shell

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch '{self.target}'",)) if self.by_shell else (Path.touch, (self.target,))


def write_trap(path: Path, target: Path, form: str) -> Path:
    """Weights with a trap among them: torch's zip, torch's older stream of pickles, or a plain pickle."""
    content = {"state_dict": small_state_dict(), "callbacks": Trap(target, by_shell=form == "zip")}
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "pickle":
        path.write_bytes(pickle.dumps({"callbacks": Trap(target, by_shell=False)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


def test_the_trap_itself_is_sound(tmp_path: Path) -> None:
    for form in ("zip", "legacy", "pickle"):
        path, target = tmp_path / f"{form}.pt", tmp_path / f"trapped by {form}"
        write_trap(path, target, form)
        if form == "pickle":
            pickle.loads(path.read_bytes())
        else:
            torch.load(path, weights_only=False)
        assert target.exists()


# Code, through the scripts

TRAPS = [(suffix, "zip") for suffix in (".pt", ".pth", ".ckpt", ".bin", ".safetensors")]
TRAPS += [(".pt", "legacy"), (".pt", "pickle"), (".safetensors", "pickle")]
KEYS = [
    ("evaluateViT", "checkpoint_path", {}),
    ("evaluateDiffusion", "checkpoint_path", {}),
    ("trainViT", "pretrained_model_path", {}),
    ("trainDiffusion", "pretrained_model_path", {}),
    ("trainDiffusion", "coarse_checkpoint_path", {}),
    ("trainDiffusion", "vae_path", {}),
    ("trainDiffusion", "pretrained_vae_path", {}),
    ("trainDiffusion", "teacher_vae_path", {"vae_type": "AutoencoderTiny", "teacher_vae_type": "AutoencoderKL"}),
    ("evaluateViT", "lpips_weights", {}),
]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(("script", "key", "changes"), KEYS, ids=[f"{script}-{key}" for script, key, _ in KEYS])
def test_a_pickle_with_code_is_refused_wherever_a_config_takes_weights(
    script: str,
    key: str,
    changes: dict[str, Any],
    dataset: Path,
    vit_run: Path,
    diffusion_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "output"
    config = {
        "trainViT": small_vit(dataset, output),
        "trainDiffusion": small_diffusion(dataset, output),
        "evaluateViT": small_vit_evaluation(dataset, vit_run, output),
        "evaluateDiffusion": small_diffusion_evaluation(dataset, diffusion_run, output),
    }[script] | changes
    if "teacher_vae_type" in changes:
        config["vae"] = {"block_out_channels": [8, 8], "latent_channels": 2}
    for suffix, form in TRAPS:
        path, target = tmp_path / f"{form}{suffix}", tmp_path / "trapped"
        write_trap(path, target, form)
        arguments = ["--config", str(write_config(tmp_path / "c.json", config | {key: str(path)}))]
        capsys.readouterr()
        status = SCRIPTS[script].main(arguments)
        captured = capsys.readouterr()
        message = one_error((status, captured.out, captured.err))
        assert not target.exists()
        assert not output.exists(), "nothing was begun"
        assert str(path) in message
        assert "; " in message or ". Use a copy of" in message, "what to do follows"
        assert "weights_only" not in message, "no advice to run the code"


# Code, in model folders


@pytest.fixture
def model(tmp_path: Path) -> Path:
    toy_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("part", ["coarse", "vae", "unet"])
def test_pickled_weights_in_a_model_folder_are_not_read(part: str, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "trapped"
    write_trap(model / part / "diffusion_pytorch_model.bin", target, "zip")
    load_model(model)  # the safetensors beside it are what counts
    (model / part / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=rf"model/{part}' holds no .* that can be loaded: "):
        load_model(model)
    assert not target.exists()


@pytest.mark.parametrize(
    "entry",
    [
        {"coarse": ["os", "system"]},
        {"coarse": ["trap_module", "CoarseNet"]},
        {"vae": ["Modules.d3rsmde.coarse", "CoarseNet"]},
        {"unet": ["diffusers", "StableDiffusionPipeline"]},
        {"unet": ["unet", "UNet2DModel"]},
        {"scheduler": "PLBRScheduler"},
        {"safety_checker": ["trap_module", "Trap"]},
        {"../../elsewhere": ["diffusers", "UNet2DModel"]},
        {"/etc": ["diffusers", "UNet2DModel"]},
        {"_class_name": "StableDiffusionPipeline"},
        {"_class_name": ["trap_module", "D3RSMDE"]},
        {"margin": 10**9},
        {"tile_size": 10**12},
        {"steps": "1"},
        {"normalisation": {"a": 1}},
    ],
    ids=str,
)
def test_a_model_index_names_no_other_code_and_no_other_place(
    entry: dict[str, Any], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "trapped"
    code = f"import pathlib\npathlib.Path({str(target)!r}).touch()\nCoarseNet = D3RSMDE = Trap = UNet2DModel = object\n"
    for place in (model, model / "unet", tmp_path):
        (place / "trap_module.py").write_text(code, encoding="utf-8")
        (place / "unet.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    index = json.loads((model / "model_index.json").read_text(encoding="utf-8"))
    (model / "model_index.json").write_text(json.dumps(index | entry), encoding="utf-8")
    with pytest.raises(UserError, match="model") as caught:
        load_model(model)
    assert str(caught.value).isprintable()
    assert not target.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"auto_map": {"AutoModel": "trap_module.Trap"}}, "has the key 'auto_map'"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "has the key 'quantization_config'"),
        ({"norm_num_groups": 10**6}, "no size of a network is beyond 65,536"),
        ({"block_out_channels": [65_536, 65_536]}, "describes a network of"),
        ({"layers_per_block": 60_000}, "far more than the"),
    ],
    ids=str,
)
def test_a_part_asks_for_no_other_code_and_no_more_than_it_holds(change: Any, said: str, model: Path) -> None:
    path = model / "unet" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load_model(model)


def test_a_part_of_another_class_than_its_index_says(model: Path) -> None:
    path = model / "unet" / "config.json"
    path.write_text((model / "vae" / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(UserError, match="unet' holds no UNet2DModel that can be loaded: "):
        load_model(model)


def test_an_index_of_weights_reaches_no_other_file(model: Path, tmp_path: Path) -> None:
    folder = model / "unet"
    shutil.move(folder / "diffusion_pytorch_model.safetensors", tmp_path / "outside.safetensors")
    names = {"weight_map": {"conv_in.weight": "../../outside.safetensors"}, "metadata": {"total_size": 1}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(names), encoding="utf-8")
    with pytest.raises(UserError, match="the weights are in several files"):
        load_model(model)


# Containers


def rezipped(path: Path, source: Path, compression: int, extra: dict[str, bytes] | None = None) -> Path:
    """torch's zip with its entries written otherwise, and further ones."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        for name, content in (extra or {}).items():
            new.writestr(name, content)
    return path


def test_entries_of_an_archive_are_written_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    torch.save(small_state_dict(), folder / "sound.pt")
    before = sorted(tmp_path.rglob("*"))
    path = rezipped(
        folder / "tricks.pt", folder / "sound.pt", zipfile.ZIP_STORED, {"../../x": b"1", "/tmp/x-of-d3": b"1"}
    )
    try:
        load_ldm_autoencoder(path, norm_num_groups=4)
    except ValueError as error:
        assert str(path) in str(error)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])
    assert not Path("/tmp/x-of-d3").exists()


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    torch.save(small_state_dict(), tmp_path / "sound.pt")
    check_archive(tmp_path / "sound.pt")
    load_ldm_autoencoder(tmp_path / "sound.pt", norm_num_groups=4)
    path = rezipped(
        tmp_path / "bomb.pt", tmp_path / "sound.pt", zipfile.ZIP_DEFLATED, {"archive/data/99": bytes(10**8)}
    )
    assert path.stat().st_size < 10**6
    remedy = "its entries are compressed, which torch never does; save it again with torch.save"
    with pytest.raises(ValueError, match=remedy):
        load_ldm_autoencoder(path, norm_num_groups=4)
    with pytest.raises(UserError, match=remedy):
        build_coarse(vit(pretrained_model_path=str(path)))


def test_the_old_tar_format_is_refused(tmp_path: Path) -> None:
    path, target = tmp_path / "old.pt", tmp_path / "trapped"
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors", "../../escaped"):
            content = pickle.dumps(Trap(target, by_shell=False))
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(ValueError, match=r"old\.pt"):
        load_ldm_autoencoder(path)
    with pytest.raises(UserError, match=r"old\.pt"):
        build_coarse(vit(pretrained_model_path=str(path)))
    assert not target.exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["old.pt"]


def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "views.pt"
    wide = torch.ones(1).as_strided((60_000, 60_000, 3, 3), (0, 0, 0, 0))  # 130 GB of one number
    torch.save(small_state_dict() | {"encoder.conv_in.weight": wide}, path)
    with pytest.raises(ValueError, match=r"its tensors would take 129,\d+,\d+,\d+ bytes, and the file has"):
        load_ldm_autoencoder(path, norm_num_groups=4)
    torch.save({"blocks.0.attn.qkv.weight": wide}, path)
    with pytest.raises(UserError, match="its tensors would take"):
        build_coarse(vit(pretrained_model_path=str(path)))


# Memory


def test_no_header_makes_a_large_network(tmp_path: Path) -> None:
    """Kilobytes that describe networks of gigabytes to terabytes; the growth of a process of its own is measured."""
    sizes = {"embed_dim": 8192, "depth": 12, "num_heads": 8}  # 40 GB
    header = {
        "format": FORMAT,
        "task": "coarse",
        "architecture": {"backbone": "test_vit", "options": sizes, "features": 16},
        "progress": {},
    }
    save_file({"network/x": torch.zeros(1)}, tmp_path / "wide.safetensors", {HEADER_KEY: json.dumps(header)})
    header["architecture"] = {"backbone": "test_vit", "options": sizes | {"depth": 60_000}}
    save_file({"network/x": torch.zeros(1)}, tmp_path / "deep.safetensors", {HEADER_KEY: json.dumps(header)})
    model = tmp_path / "model"
    toy_model().save_pretrained(model)
    path = model / "vae" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"block_out_channels": [16384, 16384]}), encoding="utf-8")
    code = """
        import resource, sys
        from pathlib import Path
        from Utils.core.errors import UserError
        from Systems.d3rsmde.build import load_coarse, load_model
        folder = Path(sys.argv[1])
        load_model(Path(sys.argv[2]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for load, name in ((load_coarse, "wide.safetensors"), (load_coarse, "deep.safetensors"), (load_model, "model")):
            try:
                load(folder / name)
            except UserError as error:
                print(error)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    toy_model().save_pretrained(tmp_path / "sound")
    *errors, megabytes = in_a_process(code, tmp_path, tmp_path / "sound")
    assert len(errors) == 3
    assert "describes a network" in errors[0] and "and the weights are 1" in errors[0]
    assert "far more than the 1 weights" in errors[1]
    assert "describes a network" in errors[2]
    assert int(megabytes) < 100


def in_a_process(code: str, *arguments: Path) -> list[str]:
    """The lines that a program prints."""
    result = run(["-c", textwrap.dedent(code), *arguments])
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_a_refiner_checkpoint_with_a_header_of_anything(tmp_path: Path) -> None:
    run, model = tmp_path / "run", toy_model(coarse=False)
    model.vae.save_pretrained(run / VAE_FOLDER)
    path = write_checkpoint(run / "unet" / "checkpoints" / "best.safetensors", RefinerTask(model, ["L1Loss"]))
    load_refiner(evaluation(path))
    sound = RefinerTask(model, ["L1Loss"]).architecture()
    changes: list[dict[str, Any]] = [
        {"unet": None},
        {"unet": "google/ddpm-cat-256"},  # diffusers would ask the hub for it
        {"unet": {"block_out_channels": 5}},
        {"scheduler": []},
        {"scheduler": {"num_train_timesteps": 2**31}},  # 16 GB of weights of steps
        {"scheduler": {"num_train_timesteps": "6"}},
        {"margin": "0"},
        {"margin": 10**9},
        {"steps": [1]},
    ]
    for change in changes:
        tensors = {f"network/{name}": value for name, value in model.unet.state_dict().items()}
        header = {"format": FORMAT, "task": "unet", "architecture": {**sound, **change}, "progress": {}}
        save_file(tensors, path, {HEADER_KEY: json.dumps(header)})
        with pytest.raises(UserError, match="describes a network that this version cannot build: "):
            load_refiner(evaluation(path))
    lacking = {name: value for name, value in sound.items() if name != "margin"}
    header = {"format": FORMAT, "task": "unet", "architecture": lacking, "progress": {}}
    save_file(tensors, path, {HEADER_KEY: json.dumps(header)})
    with pytest.raises(UserError, match="cannot build: 'margin'"):
        load_refiner(evaluation(path))


# Paths


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/..", "./a", "~/a", "a/b/c", "a\x00/b", "a/b\nc"]
)
def test_names_that_are_neither_path_nor_hub(name: str, no_network: None) -> None:
    with pytest.raises(UserError) as caught:
        build_vae(training(vae_path="x").model_copy(update={"vae_path": name}), None)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "pipe"])
def test_devices_and_pipes_are_no_weights(name: str, tmp_path: Path) -> None:
    path = tmp_path / name  # an absolute name stays as it is
    if name == "pipe":
        os.mkfifo(path)
    for load in (
        lambda: load_coarse(path),
        lambda: load_model(path),
        lambda: build_coarse(vit(pretrained_model_path=str(path))),
        lambda: load_refiner(evaluation(path)),
        lambda: build_vae(training(vae_path=str(path)), None),
    ):
        with pytest.raises(UserError, match=name):
            load()


def test_a_backbone_option_names_no_file(tmp_path: Path) -> None:
    target = tmp_path / "trapped"
    path = write_trap(tmp_path / "weights.pth", target, "zip")
    for option in ({"checkpoint_path": str(path)}, {"pretrained": True}):
        with pytest.raises(UserError, match="takes no such option"):
            build_coarse(vit(model={"options": option}))
    assert not target.exists()


# The checks themselves


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 40 + "]" * 40, "deeper than 32 levels"),
        ("[" * 100_000, "deeper than 32 levels"),
        ("1" * 20, "has 20 digits"),
        ("-" + "9" * 19, "more than 64 bits"),
        ('"a\\u0000"', "NUL"),
        ('{"\\ud800": 1}', "half a character"),
        ("{", "Expecting property name"),
    ],
)
def test_json_that_is_not_plain(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json(text)


def test_plain_json_is_what_json_says() -> None:
    data = {"a": [1, -(2**62), 1.5, None, True, {"höhe": "\U0001f30d"}]}
    assert parse_json(json.dumps(data)) == data


def test_sizes_are_found_at_any_depth() -> None:
    check_sizes({"a": [65_536, {"b": -65_536}], "scale": 1e9, "name": "70000", "flag": True, "none": None})
    for data in ({"b": 65_537}, {"a": [{"b": 65_537}]}, {"a": {"b": -65_537}}, {"b": (1, 65_537)}):
        with pytest.raises(ValueError, match="its 'b' is -?65537"):
            check_sizes(data)


def test_sound_weights_still_load(tmp_path: Path) -> None:
    """Checks that refuse everything would pass all of the above."""
    vae = toy_vae()
    vae.save_pretrained(tmp_path / "vae")
    assert build_vae(training(vae_path=str(tmp_path / "vae")), None).config["latent_channels"] == 4
    half = {name: value.half() for name, value in small_state_dict().items()}
    torch.save(half, tmp_path / "half.pt")
    load_ldm_autoencoder(tmp_path / "half.pt", norm_num_groups=4)
    torch.save(small_state_dict(), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    load_ldm_autoencoder(tmp_path / "legacy.pt", norm_num_groups=4)
    toy_coarse().save_pretrained(tmp_path / "coarse")
