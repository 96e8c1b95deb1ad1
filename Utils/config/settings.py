"""JSON configs, typed and checked: the published keys as they are, and this project's own beside them.

An empty string means "not given".  Anything unknown, of a wrong type or out of range is an error that names the
file, the key, the value and the nearest valid key, before any model is built.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from Modules.common.inference import Precision
from Modules.common.untrusted import check_json, parse_json, read_text
from Modules.d3rsmde.autoencoders import LargeVaeType, VaeType
from Modules.losses.height_losses import LOSSES
from Utils.core.errors import UserError

_LARGEST = 2**31 - 1
Positive = Annotated[int, Field(gt=0, le=_LARGEST)]
NotNegative = Annotated[int, Field(ge=0, le=_LARGEST)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Paths = str | list[str]


class Section(BaseModel):
    """A JSON object: closed, strict about types, unchangeable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty_strings(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        # An unknown key stays even when it is empty: it is an error all the same.
        given = {key: value for key, value in data.items() if value != "" or key not in cls.model_fields}
        return {key: _without_empty(value) if isinstance(value, list) else value for key, value in given.items()}


def _without_empty(items: list[Any]) -> list[Any]:
    return [item for item in items if item != ""]


class NetworkSection(Section):
    """``model``: stage 1's network."""

    backbone: str = "vitb_rn50_384"
    pretrained: bool = True
    options: dict[str, int | float | bool | str] = {}
    taps: list[Positive] = []
    features: Positive = 256
    readout: Literal["project", "add", "ignore"] = "project"


class VaeSection(Section):
    """``vae``: the autoencoder that is built when ``vae_path`` is empty.

    The default widths are those of no AutoencoderTiny, whose widths are all the same: it has to be given a size.
    """

    block_out_channels: Annotated[list[Positive], Field(min_length=1)] = [32, 64, 128, 128]
    layers_per_block: Positive = 1
    latent_channels: Positive = 4
    norm_num_groups: Positive = 8


class UNetSection(Section):
    """``unet``: sizes of the refiner; what is left out keeps the published size of the VAE's family."""

    block_out_channels: Annotated[list[Positive], Field(min_length=1)] | None = None
    layers_per_block: Positive | None = None
    attention_strides: list[Positive] | None = None
    attention_head_dim: Positive | None = None
    norm_num_groups: Positive | None = None


class BetasSection(Section):
    """``diffusion_cfg.betas``: the blending weights, linspace(start, stop, num_timesteps)."""

    start: Annotated[float, Field(ge=0.0, le=1.0)] = 0.8
    stop: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    num_timesteps: Positive = 6


class DiffusionSection(Section):
    """``diffusion_cfg``: the schedule, and how many of its steps inference takes (false: all)."""

    diff_iter: Literal[False] | Positive = False
    betas: BetasSection = BetasSection()

    @model_validator(mode="after")
    def _not_more_steps_than_the_schedule(self) -> DiffusionSection:
        if self.diff_iter > self.betas.num_timesteps:
            raise ValueError(f"diff_iter {self.diff_iter} is more than betas.num_timesteps {self.betas.num_timesteps}")
        return self

    @property
    def steps(self) -> int | None:
        """Steps at inference, None for all."""
        return self.diff_iter or None


class DataConfig(Section):
    """What every config has."""

    dataset_path: str
    seed: NotNegative = 42
    num_workers: NotNegative = 0
    batch_size: Positive = 8
    output_dir: str | None = None
    prior_path: str | None = None


class TrainingConfig(DataConfig):
    """What both training configs have."""

    lr: Annotated[float, Field(gt=0.0)]
    threshold_epoch: NotNegative = 5
    downgrade_lr_ratio: Rate = 0.6
    lr_schedule: Literal["plateau", "cosine"] = "plateau"
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    epochs: Positive = 50
    loss_types: str | Annotated[list[str], Field(min_length=1)]
    save_n_epoch: NotNegative = 0
    save_i_epoch: list[Positive] = []
    validate_every: Positive = 1
    precision: Precision = "fp32"
    accumulate: Positive = 1
    warmup_steps: NotNegative = 0
    gradient_clip: Annotated[float, Field(gt=0.0)] | None = None
    ema_decay: Share = 0.0
    save_minutes: Annotated[float, Field(ge=0.0)] = 10.0
    cache_gigabytes: Annotated[float, Field(ge=0.0)] = 1.0
    flips: list[Literal["horizontal", "vertical"]] = []
    split_text: Paths | None = None
    val_split_text: Paths | None = None
    pretrained_model_path: str | None = None
    not_split: bool = False
    validate_on: Literal["training", "test"] = "training"

    @field_validator("loss_types")
    @classmethod
    def _known_losses(cls, value: str | list[str]) -> str | list[str]:
        for name in [value] if isinstance(value, str) else value:
            if name not in LOSSES:
                nearest = difflib.get_close_matches(name, LOSSES, n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown loss '{name}'; did you mean '{nearest}'? (known: {', '.join(LOSSES)})")
        return value

    @property
    def losses(self) -> list[str]:
        """``loss_types`` as a list."""
        return [self.loss_types] if isinstance(self.loss_types, str) else self.loss_types


class ViTTrainingConfig(TrainingConfig):
    """``trainViT.py``."""

    lr: Annotated[float, Field(gt=0.0)] = 5e-5
    loss_types: str | Annotated[list[str], Field(min_length=1)] = ["HDNLoss"]
    k_folds: NotNegative | list[str] = 0
    model: NetworkSection = NetworkSection()

    @field_validator("k_folds")
    @classmethod
    def _two_folds_at_least(cls, value: int | list[str]) -> int | list[str]:
        if value == 1 or (isinstance(value, list) and len(value) < 2):
            raise ValueError("cross-fitting needs 2 folds or more (0 for none)")
        return value


class DiffusionTrainingConfig(TrainingConfig):
    """``trainDiffusion.py``."""

    lr: Annotated[float, Field(gt=0.0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    loss_types: str | Annotated[list[str], Field(min_length=1)] = ["L1Loss"]
    vae_type: VaeType
    vae_path: str | None = None
    pretrained_vae_path: str | None = None
    teacher_vae_type: LargeVaeType | None = None
    teacher_vae_path: str | None = None
    vae_lr: Annotated[float, Field(ge=0.0)] = 1e-5
    vae_epochs: NotNegative = 0
    vae_batch_size: Positive | None = None
    vae_crop_size: NotNegative = 0
    vae: VaeSection = VaeSection()
    unet: UNetSection = UNetSection()
    dropout: Share | None = None
    diffusion_cfg: DiffusionSection = DiffusionSection()
    margin: NotNegative = 0
    keep_latents: bool = True
    latent_path: str | None = None
    latent_gigabytes: Annotated[float, Field(ge=0.0)] = 20.0
    own_prediction_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    one_step: bool = False
    coarse_checkpoint_path: str | None = None

    @model_validator(mode="after")
    def _one_step_is_one_step(self) -> DiffusionTrainingConfig:
        if self.one_step and self.own_prediction_share:
            raise ValueError("one_step trains the first step alone, which blends nothing: set own_prediction_share 0")
        if self.one_step and self.diffusion_cfg.diff_iter not in (False, 1):
            raise ValueError(f"one_step takes one step, not diff_iter {self.diffusion_cfg.diff_iter}: set that false")
        return self

    @property
    def steps(self) -> int | None:
        """Blending steps at inference, None for all."""
        return 1 if self.one_step else self.diffusion_cfg.steps

    @model_validator(mode="after")
    def _a_teacher_has_a_light_pupil(self) -> DiffusionTrainingConfig:
        kind, path = self.teacher_vae_type, self.teacher_vae_path
        if (kind is None) != (path is None):
            given, absent = ("type", "path") if path is None else ("path", "type")
            raise ValueError(f"teacher_vae_{given} is given without teacher_vae_{absent}; a teacher needs both")
        if path is not None and self.vae_type != "AutoencoderTiny":
            raise ValueError(f"a teacher is for vae_type AutoencoderTiny, not {self.vae_type}; remove teacher_vae_path")
        if path is not None and not self.vae_epochs:
            raise ValueError("teacher_vae_path is given but vae_epochs is 0: nothing would be learnt; set vae_epochs")
        return self


class EvaluationConfig(DataConfig):
    """What both evaluation configs have."""

    output_dir: str
    checkpoint_path: str
    test_split_text: Paths | None = None
    lpips_weights: str | None = None
    ground_sample_distance: Annotated[float, Field(gt=0.0)] | None = None
    metres_per_unit: Annotated[float, Field(gt=0.0)] = 1.0
    map_format: Literal["tif", "npy"] = "tif"
    pictures: NotNegative = 8
    precision: Precision = "fp32"
    channels_last: bool = True
    compile: bool = False


class ViTEvaluationConfig(EvaluationConfig):
    """``evaluateViT.py``."""


class DiffusionEvaluationConfig(EvaluationConfig):
    """``evaluateDiffusion.py``."""

    vae_type: VaeType
    vae_path: str | None = None
    pretrained_vae_path: str | None = None
    diffusion_cfg: DiffusionSection = DiffusionSection()
    save_steps: bool = False


ConfigT = TypeVar("ConfigT", bound=Section)
_SHOWN_CHARACTERS = 80


def load_config(path: Path, kind: type[ConfigT], overrides: Sequence[str] = ()) -> ConfigT:
    """Read a JSON config and apply ``key=value`` overrides.

    Args:
        path: the JSON file.
        kind: the config's class.
        overrides: ``key=value``; dots enter nested objects; the value is JSON, or else taken as text.

    Raises:
        UserError: a missing or broken file, an unknown key, a wrong type or value.
    """
    try:
        data = parse_json(read_text(path))
    except OSError as error:
        reason = f"config '{path}' cannot be read: {error.strerror or error}"
        raise UserError(f"{reason}; give the path of a JSON file") from error
    except ValueError as error:
        raise UserError(f"config '{path}' is not valid JSON: {error}; correct it there") from error
    if not isinstance(data, dict):
        raise UserError(f"config '{path}' must hold a JSON object, not a {type(data).__name__}")
    for override in overrides:
        _apply(data, override)
    try:
        check_json(data)
    except ValueError as error:
        raise UserError(f"config '{path}' with --set: {error}; correct that value") from error
    return parse_config(data, kind, str(path))


def parse_config(data: Mapping[str, Any], kind: type[ConfigT], source: str) -> ConfigT:
    """Check a config that is already in memory; ``source`` names it in errors."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise UserError(f"config '{source}': {_explain(error, kind, data)}") from error


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set '{override}': write key=value, for example --set epochs=4")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    *parents, last = key.split(".")
    target = data
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise UserError(f"--set '{override}': '{parent}' is not an object in the config")
    target[last] = value


def _explain(error: ValidationError, kind: type[Section], data: Mapping[str, Any]) -> str:
    """The first complaint, in one line."""
    errors = error.errors()
    # Each member of a union complains: the one that came furthest into the value was meant.
    key = _location(errors[0]["loc"], data)
    about_key = [item for item in errors if _location(item["loc"], data)[: len(key)] == key]
    first = max(about_key, key=lambda item: len(_location(item["loc"], data)))
    location = _location(first["loc"], data)
    name = ".".join(location)
    if first["type"] == "extra_forbidden":
        return f"unknown key '{name}'; {_nearest(kind, location)}"
    if first["type"] == "missing":
        absent = [*_location(first["loc"][:-1], data), str(first["loc"][-1])]
        return f"key '{'.'.join(absent)}' is missing or empty; add it"
    same = [item for item in about_key if _location(item["loc"], data) == location]
    # A value of the right type that breaks a rule is nearer than one of a wrong type.
    same = [item for item in same if not item["type"].endswith(("_type", "literal_error"))] or same
    expected = " or ".join(dict.fromkeys(_expectation(item["type"], item["msg"]) for item in same))
    if same[0]["msg"].startswith("Input "):
        expected = f"it should be {expected}"
    shown = json.dumps(first["input"], default=str, ensure_ascii=False)
    shown = shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}..."
    return f"key '{name}' = {shown}: {expected}" if name else expected


def _expectation(kind: str, message: str) -> str:
    if kind == "model_type":
        return "a JSON object"
    return message.removeprefix("Value error, ").removeprefix("Input should be ").replace("False", "false")


def _location(place: Sequence[int | str], data: Any) -> list[str]:
    """The keys and indices in an error's place; the names of union members, which pydantic puts among them, go."""
    keys = []
    for part in place:
        is_key = isinstance(data, Mapping) and part in data
        if is_key or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            keys.append(str(part))
            data = data[part]
    return keys


def _nearest(kind: type[Section], location: Sequence[str]) -> str:
    """What the writer of an unknown key may have meant."""
    *parents, key = location
    known = _keys_at(kind, parents)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    inside = [f"{name}.{key}" for name in known if key in _keys_at(kind, [*parents, name])]
    for meant in (*inside, *near):
        return f"did you mean '{'.'.join([*parents, meant])}'?"
    return f"known keys: {', '.join(sorted(known))}"


def _keys_at(kind: type[Section], location: Sequence[str]) -> list[str]:
    """The keys that the object at ``location`` may have; none where no section is."""
    for part in location:
        field = kind.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, Section)):
            return []
        kind = inner
    return list(kind.model_fields)
