"""The bars that a run has to clear, each as a line: what was asked, what was reached, met or missed by how much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.models.subject import Steps
from benchmarks.plan import (
    DEPTH_ANYTHING_BASE,
    DINOV2_DPT,
    ENC_DEC,
    FAST,
    LARGE,
    MARIGOLD,
    PLAIN_LARGE,
    REFERENCE,
    REFERENCE_STEPS,
    case_name,
    frame_case_name,
)
from benchmarks.records import Results, Row

_ENSEMBLE = 10
_DIFFUSION_STEPS = 50


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        text: what is compared.
        asked: the bound.
        wants: whether at least or at most that.
        reached: what was measured; None where a part of it is missing.
        unit: of both numbers.
        remark: what the reader must know of the number.
    """

    text: str
    asked: float
    wants: Literal["at least", "at most"]
    reached: float | None
    unit: str = "x"
    remark: str = ""

    @property
    def met(self) -> bool:
        """Whether it was measured and is cleared."""
        if self.reached is None:
            return False
        return self.reached >= self.asked if self.wants == "at least" else self.reached <= self.asked

    def line(self) -> str:
        """The bar in words."""
        begun = f"{self.text}: asked {self.wants} {self.asked:g}{self.unit}"
        remark = f" ({self.remark})" if self.remark else ""
        if self.reached is None:
            return f"{begun}, not measured{remark}"
        outcome = "met" if self.met else f"missed by {abs(self.reached / self.asked - 1.0):.0%}"
        return f"{begun}, reached {_digits(self.reached)}{self.unit}, {outcome}{remark}"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100.0 else f"{value:.3g}"


def bars(results: Results) -> list[Bar]:
    """The bars of this kind of device, for every precision that was measured."""
    precisions = _precisions(results)
    found = [*_training(results), *_switches(results, precisions), *_peers(results, precisions), *_frames(results)]
    if results.machine["device"] == "cuda":
        found += _gpu(results, precisions)
    return found


def _precisions(results: Results) -> list[str]:
    """Precisions in which our pipelines were measured."""
    cases = [record.case for record in results.of_kind("inference")]
    return list(dict.fromkeys(case.switches.precision for case in cases if case.subject != PLAIN_LARGE))


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return None if numerator is None or denominator is None else numerator / denominator


def _value(row: Row | None, key: str) -> float | None:
    return None if row is None else row[key]


def _seconds(results: Results, subject: str, precision: str, steps: Steps) -> float | None:
    return _value(results.find(case_name(subject, precision), steps), "seconds_per_image")


def _training(results: Results) -> Iterator[Bar]:
    slow = next(results.rows("train-2-uncached-fp32"), None)
    for name, text, asked in (
        ("train-2-cached-fp32", "kept latents alone, fp32", 3.8),
        # diffusers' attention layers take the fused kernels as they are: both sides have the faster attention.
        ("train-2-cached-fp32", "kept latents and fused attention, which the slower side has as well, fp32", 6.0),
        ("train-2-cached-bf16", "kept latents, fused attention and bf16", 8.5),
    ):
        fast = next(results.rows(name), None)
        rate = _ratio(_value(fast, "steps_per_second"), _value(slow, "steps_per_second"))
        yield Bar(
            f"training steps of stage 2 with {text}, against encoding in every step in fp32",
            asked,
            "at least",
            rate,
            remark=_same_result(slow, fast),
        )


def _same_result(slow: Row | None, fast: Row | None) -> str:
    """How far the losses of the first steps are apart."""
    if slow is None or fast is None:
        return ""
    pairs = list(zip(slow["losses"], fast["losses"], strict=False))
    apart = max(abs(a - b) / abs(a) for a, b in pairs)
    return f"losses of the first {len(pairs)} steps differ by at most {apart:.1e} of their value"


def _switches(results: Results, precisions: list[str]) -> Iterator[Bar]:
    """Stage 2 alone, against the model as it is constructed."""
    plain = _seconds(results, PLAIN_LARGE, "fp32", REFERENCE_STEPS)
    for precision in precisions:
        for subject, text, asked in ((LARGE, "the large VAE", 1.8), (REFERENCE, "the light VAE", 4.0)):
            row = results.find(case_name(subject, precision), REFERENCE_STEPS)
            yield Bar(
                f"stage 2 with {text}, {REFERENCE_STEPS} steps, {precision}, against the plain large one, fp32",
                asked,
                "at least",
                _ratio(plain, _value(row, "after_vit_seconds")),
            )


def _peers(results: Results, precisions: list[str]) -> Iterator[Bar]:
    """The whole pipeline against the peers, both sides in the same precision."""
    for precision in precisions:
        ours = _seconds(results, REFERENCE, precision, REFERENCE_STEPS)
        marigold = results.find(case_name(MARIGOLD, precision), _DIFFUSION_STEPS)
        once = _value(marigold, "seconds_per_image")
        remark = "the peer's time is computed from measured parts" if marigold and marigold["computed"] else ""
        text = f"light VAE and {REFERENCE_STEPS} steps, {precision}, against Marigold's size"
        yield Bar(f"{text}, {_DIFFUSION_STEPS} steps", 25.0, "at least", _ratio(once, ours), remark=remark)
        ensemble = _ensemble_seconds(results, marigold, precision)
        remark = "computed: its image is encoded once; aligning its runs is not counted"
        yield Bar(
            f"{text}, {_ENSEMBLE} runs of {_DIFFUSION_STEPS} steps",
            200.0,
            "at least",
            _ratio(ensemble, ours),
            remark=remark,
        )
        yield Bar(
            f"time of the fast preset, {precision}, over that of Depth Anything V2 base",
            1.5,
            "at most",
            _ratio(
                _seconds(results, FAST, precision, 1),
                _seconds(results, DEPTH_ANYTHING_BASE, precision, None),
            ),
        )


def _frames(results: Results) -> Iterator[Bar]:
    """What was published about Enc-Dec-IRv2, in batches on a T4: 0.019 s an image, 23 times faster than DINOv2-S."""
    for precision in dict.fromkeys(record.case.switches.precision for record in results.of_kind("frames")):
        ours, theirs = (results.best(frame_case_name(subject, precision)) for subject in (ENC_DEC, DINOV2_DPT))
        text = f"Enc-Dec-IRv2 on frames, {precision}, each at its best batch"
        seconds = [_value(row, "seconds_per_image") for row in (theirs, ours)]
        yield Bar(f"{text}, against DINOv2-S with a DPT head", 23.0, "at least", _ratio(*seconds))
        yield Bar(f"{text}, time of an image", 0.019, "at most", seconds[1], unit=" s", remark="published for a T4")


def _ensemble_seconds(results: Results, once: Row | None, precision: str) -> float | None:
    """Runs that share one encoding of the image."""
    base = next(results.rows(case_name(MARIGOLD, precision)), None)
    if once is None or base is None or "encoder" not in base["parts"]:
        return None
    encoding = base["parts"]["encoder"]["seconds"]
    return _ENSEMBLE * (once["seconds_per_image"] - encoding) + encoding


def _gpu(results: Results, precisions: list[str]) -> Iterator[Bar]:
    for precision in precisions:
        name = case_name(REFERENCE, precision)
        best, one = results.best(name, REFERENCE_STEPS), results.find(name, REFERENCE_STEPS)
        text = f"the whole pipeline, light VAE, {REFERENCE_STEPS} steps, {precision}"
        yield Bar(
            f"{text}, at its best batch" + (f" of {best['batch']}" if best else ""),
            100.0,
            "at least",
            None if best is None else 1.0 / best["seconds_per_image"],
            unit=" images/s",
        )
        peak = None if one is None else one["peak_bytes"] / 1e9
        yield Bar(f"{text}, peak memory at batch 1", 2.0, "at most", peak, unit=" GB")
