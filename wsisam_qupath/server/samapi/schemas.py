"""What the SAM extension sends, under its own names. No I/O.

All coordinates are pixels of the image that is sent with them, the view of QuPath. Fields that are
not read here are taken and left alone: other versions of the extension send others.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_LARGEST_PX = 1_000_000

ViewPx: TypeAlias = Annotated[float, Field(ge=-_LARGEST_PX, le=_LARGEST_PX)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]

OutputType: TypeAlias = Annotated[
    Literal[
        "single mask",
        "multi-mask (all)",
        "multi-mask (largest)",
        "multi-mask (smallest)",
        "multi-mask (best quality)",
    ],
    BeforeValidator(lambda text: text.lower() if isinstance(text, str) else text),
]
"""Which of several answers to a point are wanted, in the extension's words for people."""


class _Sent(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class SamRequest(_Sent):
    """Body of ``POST /sam/``: one object.

    Attributes:
        b64img: the view, PNG or JPEG; base64.
        bbox: rectangle around the object, x0, y0, x1, y1.
        point_coords: points (x, y), as pixels with their centers meant.
        point_labels: label of each point: 1 inside of the object, 0 outside.
        multimask_output: whether up to three answers are wanted.
        b64mask: an earlier mask; the extension sends none.
        checkpoint_url: one of those that ``GET /sam/weights/`` lists.
    """

    b64img: Annotated[str, Field(min_length=1)]
    bbox: tuple[ViewPx, ViewPx, ViewPx, ViewPx] | None = None
    point_coords: list[tuple[ViewPx, ViewPx]] | None = None
    point_labels: list[Literal[0, 1]] | None = None
    multimask_output: bool = False
    b64mask: str | None = None
    checkpoint_url: str | None = None


class AutoMaskRequest(_Sent):
    """Body of ``POST /sam/automask/``: all objects of the view.

    Attributes:
        b64img, checkpoint_url: see :class:`SamRequest`.
        points_per_side: points along each side of a grid of clicks over the view.
        pred_iou_thresh, stability_score_thresh: less sure answers are left out.
        stability_score_offset: offset of the mask's threshold, in logits; see
            :func:`.stability_score`.
        box_nms_thresh: overlap of the boxes of two objects above which only the surer one is kept.
        crop_n_layers: number of further grids, each on patches half as wide as those of the one
            before.
        crop_nms_thresh: as ``box_nms_thresh``, for objects of different grids.
        crop_n_points_downscale_factor: factor by which each grid is coarser within a patch.
        min_mask_region_area: smaller parts are dropped and smaller holes filled, px².
        include_image_edge: whether objects are wanted that the edge of the view cuts.
    """

    b64img: Annotated[str, Field(min_length=1)]
    points_per_side: Annotated[int, Field(ge=1, le=1_000)] = 32
    pred_iou_thresh: Share = 0.88
    stability_score_thresh: Share = 0.95
    stability_score_offset: Annotated[float, Field(ge=0, le=100)] = 1.0
    box_nms_thresh: Share = 0.7
    crop_n_layers: Annotated[int, Field(ge=0, le=10)] = 0
    crop_nms_thresh: Share = 0.7
    crop_n_points_downscale_factor: Annotated[int, Field(ge=0, le=100)] = 1
    min_mask_region_area: Annotated[float, Field(ge=0, le=1e9)] = 0
    output_type: OutputType = "single mask"
    include_image_edge: bool = False
    checkpoint_url: str | None = None


class WeightsRequest(_Sent):
    """Body of ``POST /sam/weights/``: weights that the server is asked to download."""

    name: Annotated[str, Field(max_length=1_000)] = ""
    url: Annotated[str, Field(max_length=10_000)] = ""
