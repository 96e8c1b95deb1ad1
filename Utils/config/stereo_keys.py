"""The keys of configs that read several views of a scene."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from Utils.config.sections import NotNegative, PositiveNumber, Section

__all__ = ["Jitter", "Layout", "WithViews"]

Layout = Literal["auto", "whu_mvs", "whu_mvs_raw", "whu_tlc_pinhole", "whu_tlc_rpc", "table"]
Jitter = Literal["none", "mild", "published"]


class WithViews(Section):
    """How the views of a dataset are found, read and chosen."""

    layout: Layout = "auto"
    """What dataset_path holds: whu_mvs (processed), whu_mvs_raw, whu_tlc_pinhole, whu_tlc_rpc, or table, a CSV. By
    default it is told by its folders, and written to the log."""
    cameras: Literal["auto", "pose", "world_to_camera"] = "auto"
    """What the matrix of a pinhole camera file is: pose, camera to world with Y up and Z backward (WHU-MVS), or
    world_to_camera with y down and z forward (WHU-TLC). By default it is told by where the camera looks."""
    views: Annotated[int, Field(ge=2)] = 5
    """Views of a sample, the reference among them; 5 and 3 as published for WHU-MVS and WHU-TLC."""
    reference: NotNegative | None = 1
    """Number of the view that is drawn, in the order of the view folders: 1 and 2 as published for WHU-MVS and
    WHU-TLC. null: each view in turn, which makes a sample of every view."""
    choose_views: Literal["best", "cyclic"] = "best"
    """Which views stand beside the reference where a scene has more than are asked for: those with the best overlap
    and base-to-height ratio, or the next ones in the order of the view folders, as published."""
    value_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Smallest and largest depth or height in metres that is looked for; by default each camera file's own, or
    HEIGHT_OFF ± HEIGHT_SCALE of an RPC."""
    interval: PositiveNumber | None = None
    """Metres between depths or heights; by default each camera file's own. RPCs have none: 2.5 as published for
    WHU-TLC."""
    relative_depth_folder: str | None = None
    """Folder of relative depth maps beside those of the images, depthAnything as published; `relative` takes a
    table's column. By default none are read."""
    relative_depth_rises: Literal["auto", "depth", "height"] = "auto"
    """What rises in these maps: depth (near is dark), as published, or height (near is bright). By default what the
    JSON beside a map says, as python -m Systems.relative_depth writes it, and depth where there is none."""

    @model_validator(mode="after")
    def _low_before_high(self) -> WithViews:
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range {self.value_range}: give the smallest value first, then a larger one")
        return self
