"""Which cases a run is made of.  A case is one model in one process; it is all that its process is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict

from benchmarks.measuring import Effort
from benchmarks.models.subject import Steps, Switches
from Modules.common.precision import Precision
from Modules.d3rsmde.names import VaeType

Kind = Literal["rates", "inference", "frames", "growth", "training", "loss"]
Attention = Literal["fused", "unfused"]

# What the tables' ratios refer to: the pipeline with the light VAE at the schedule's full number of steps.
REFERENCE, REFERENCE_STEPS = "ours-AutoencoderTiny", 6
LARGE, PLAIN_LARGE, FAST = "ours-AutoencoderKL", "ours-plain-AutoencoderKL", "ours-fast"
RATES, LOSS = "rates", "loss"
MARIGOLD, DEPTH_ANYTHING_BASE = "marigold", "depth-anything-base"


class Training(BaseModel):
    """One way to train.

    Attributes:
        stage: 1, the ViT, or 2, the U-Net.
        vae_type: of stage 2.
        cached: latents come with the batch, rather than being encoded in every step.
        attention: as diffusers gives it, which takes torch's fused kernels, or without these, as a U-Net has it whose
            queries, keys and values are not contiguous.
    """

    model_config = ConfigDict(frozen=True)

    stage: Literal[1, 2]
    vae_type: VaeType = "AutoencoderKL"
    cached: bool = True
    attention: Attention = "fused"


class Case(BaseModel):
    """One model, one process.

    Attributes:
        name: unique in a run.
        kind: what is measured.
        subject: the model, by its name in ``OURS`` or ``PEERS``, or of frames in ``FRAMES``.
        steps: numbers of steps; the first is always really run.
        batches: images at once; 1 among them but in training.
        size: pixels of a side.
        frame: height and width of frames, which have a size of their own.
        sizes: for growth.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Kind
    subject: str = ""
    steps: tuple[Steps, ...] = (None,)
    batches: tuple[int, ...] = (1,)
    size: int = 512
    frame: tuple[int, int] | None = None
    sizes: tuple[int, ...] = ()
    training: Training | None = None
    switches: Switches = Switches()
    effort: Effort
    device: Literal["cpu", "cuda"] = "cpu"
    scale: str = "published"


class Settings(BaseModel):
    """What the command line says of all cases.

    Attributes:
        precisions: of the comparison with the peers, the same on both sides.
        quick: the fewest measurements.
        full: really run every number of steps, and the largest sizes.
        compile: see ``Switches``.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    size: int = 512
    precisions: tuple[Precision, ...] = ("fp32",)
    quick: bool = False
    full: bool = False
    compile: bool = False
    scale: str = "published"

    def effort(self) -> Effort:
        """Seconds and repeats of a case."""
        return self._with_compiling(self._plain_effort())

    def unhurried(self) -> Effort:
        """The same, or with ``full`` the time that the longest runs take."""
        effort = self._plain_effort()
        return self._with_compiling(replace(effort, case=480.0, timeout=3600.0) if self.full else effort)

    def _plain_effort(self) -> Effort:
        if self.scale == "toy":
            return Effort(target=0.1, least=1, most=3, case=5.0, timeout=120.0)
        if self.quick:
            return Effort(target=1.0, least=1, most=5, case=8.0, timeout=120.0)
        if self.device == "cuda":
            return Effort(target=2.0, least=5, most=50, case=60.0, timeout=900.0)
        return Effort(target=5.0, least=3, most=20, case=100.0, timeout=900.0)

    def _with_compiling(self, effort: Effort) -> Effort:
        """Compiling takes minutes on a few cores, anew for every size and batch."""
        return replace(effort, case=5.0 * effort.case, timeout=5.0 * effort.timeout) if self.compile else effort


_PEER_STEPS: dict[str, tuple[Steps, ...]] = {MARIGOLD: (1, 4, 10, 50)}
_PEERS = (MARIGOLD, "depth-anything-small", DEPTH_ANYTHING_BASE, "depth-anything-large", "dpt-hybrid", "glpn")
_REFINED = (LARGE, "ours-VA_VAE", "ours-DC_AE", REFERENCE)
_GROWING: dict[str, Steps] = {REFERENCE: 1, LARGE: 1, DEPTH_ANYTHING_BASE: None, MARIGOLD: 1}
# Height and width at which Enc-Dec-IRv2 was published, and what is measured there.
FRAME = (240, 320)
ENC_DEC, DINOV2_DPT = "enc-dec-irv2", "dinov2-small-dpt"
FRAME_SUBJECTS = (ENC_DEC, DINOV2_DPT, "depth-anything-small", "glpn")
# The training steps that the bars compare, slowest first: precision, and how.
_TRAINING: dict[str, tuple[Precision, Training]] = {
    "train-2-uncached-fp32": ("fp32", Training(stage=2, cached=False)),
    "train-2-cached-fp32-unfused-attention": ("fp32", Training(stage=2, attention="unfused")),
    "train-2-cached-fp32": ("fp32", Training(stage=2)),
    "train-2-cached-bf16": ("bf16", Training(stage=2)),
    "train-1-fp32": ("fp32", Training(stage=1)),
    "train-1-bf16": ("bf16", Training(stage=1)),
}


def case_name(subject: str, precision: str) -> str:
    """The name of a subject's inference case."""
    return f"{subject}-{precision}"


def frame_case_name(subject: str, precision: str) -> str:
    """The name of the case of a depth network on frames."""
    return f"frame-{subject}-{precision}"


def plan(settings: Settings) -> list[Case]:
    """All cases, in the order in which they run."""
    return [
        *_device(settings),
        *_inference(settings),
        *_frames(settings),
        *_training(settings),
        *_growth(settings),
    ]


def _device(settings: Settings) -> Iterator[Case]:
    """What the device can do."""
    yield Case(name=RATES, kind="rates", effort=settings.effort(), device=settings.device, scale=settings.scale)


def _inference(settings: Settings) -> Iterator[Case]:
    effort = settings.unhurried()
    batches = _batches(settings)

    def one(subject: str, precision: Precision, steps: Sequence[Steps], switched: bool = True) -> Case:
        switches = Switches(precision, compile=settings.compile and switched)
        return Case(
            name=case_name(subject, precision),
            kind="inference",
            subject=subject,
            steps=tuple(steps),
            batches=batches,
            size=settings.size,
            switches=switches,
            effort=effort,
            device=settings.device,
            scale=settings.scale,
        )

    for precision in settings.precisions:
        yield one("ours-vit", precision, (None,))
        for subject in reversed(_REFINED):
            yield one(subject, precision, (REFERENCE_STEPS, 1))
        yield one(FAST, precision, (1,))
        for subject in _PEERS:
            yield one(subject, precision, _PEER_STEPS.get(subject, (None,)))
    # The baseline of the project's own switches has none of them.
    yield one(PLAIN_LARGE, "fp32", (REFERENCE_STEPS,), switched=False)


def _frames(settings: Settings) -> Iterator[Case]:
    """Depth networks at the size at which Enc-Dec-IRv2 was published."""
    for precision in settings.precisions:
        for subject in FRAME_SUBJECTS:
            yield Case(
                name=frame_case_name(subject, precision),
                kind="frames",
                subject=subject,
                batches=_batches(settings) if settings.device == "cuda" else (1, 2, 4, 8),
                frame=(64, 96) if settings.scale == "toy" else FRAME,
                switches=Switches(precision, compile=settings.compile),
                effort=settings.effort(),
                device=settings.device,
                scale=settings.scale,
            )


def _batches(settings: Settings) -> tuple[int, ...]:
    if settings.device == "cuda":
        return (1, 2, 4, 8, 16, 32, 64)
    return (1, 2) if settings.quick else (1, 2, 4)


def _training(settings: Settings) -> Iterator[Case]:
    batch = 8 if settings.device == "cuda" else 1 if settings.quick else 2
    for name, (precision, training) in _TRAINING.items():
        yield Case(
            name=name,
            kind="training",
            training=training,
            batches=(batch,),
            size=settings.size,
            switches=Switches(precision=precision),
            effort=settings.effort(),
            device=settings.device,
            scale=settings.scale,
        )

    if settings.device == "cpu":  # the loss is compared there alone
        effort = settings.effort()
        yield Case(name=LOSS, kind="loss", batches=(2 if settings.quick else 8,), size=settings.size, effort=effort)


def _growth(settings: Settings) -> Iterator[Case]:
    sizes = tuple(settings.size * factor // 2 for factor in ((1, 2) if settings.quick else (1, 2, 4, 8)))
    precision = settings.precisions[0]
    for subject, steps in _GROWING.items():
        if settings.quick and subject in (LARGE, MARIGOLD):
            continue
        yield Case(
            name=f"growth-{subject}-{precision}",
            kind="growth",
            subject=subject,
            steps=(steps,),
            batches=_batches(settings),
            sizes=sizes,
            switches=Switches(precision, compile=settings.compile),
            effort=settings.unhurried(),
            device=settings.device,
            scale=settings.scale,
        )
