"""Schemas of requests, responses and problems. No I/O.

All coordinates are level-0 px as QuPath shows them. The schema of ``/openapi.json`` is made from
these types, and what they refuse is answered with 422.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    model_validator,
)
from typing_extensions import NotRequired, TypedDict

from ..options import MOST_CANDIDATES, ObjectType, OutlineOptions, PointsAs

GEOJSON = "application/geo+json"
GEOJSON_SEQ = "application/geo+json-seq"
"""RFC 8142: each record is RS, a feature, LF."""

PROBLEM_JSON = "application/problem+json"
RECORD_SEPARATOR = b"\x1e"

PROBLEM_PREFIX = "urn:wsisam-qupath:problem:"

PROTOCOL = 2
"""Of the interface: raised when a client of before would misread an answer, or be misread. A client
of another protocol refuses to work with the server."""

STREAMED_PROMPTS_MIN = 100
"""From so many prompts on, a collection is sent feature by feature, as each is ready."""

ServerState: TypeAlias = Literal["loading", "ready", "failed"]

_LARGEST_PX = 1_000_000_000
_MOST_LEVELS = 64


class Strict(BaseModel):
    """A model that rejects unknown fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True
    )


class Feature(TypedDict):
    """A GeoJSON feature, as QuPath's ``GsonTools`` writes it; other members are kept."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    type: Literal["Feature"]
    id: NotRequired[str | int | float | None]
    geometry: NotRequired[dict[str, Any] | None]
    properties: NotRequired[dict[str, Any] | None]


class FeatureCollection(TypedDict):
    """GeoJSON's list of features."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    type: Literal["FeatureCollection"]
    features: list[Feature]


def _shape_of(prompts: object) -> str:
    return "list" if isinstance(prompts, list) else "collection"


Prompts: TypeAlias = Annotated[
    Annotated[FeatureCollection, Tag("collection")] | Annotated[list[Feature], Tag("list")],
    Discriminator(_shape_of),
]


def list_features(prompts: Prompts) -> list[Feature]:
    """The features, in whichever form they were sent."""
    return prompts if isinstance(prompts, list) else prompts["features"]


PixelSize: TypeAlias = Annotated[float, Field(ge=0.01, le=100)]
Downsample: TypeAlias = Annotated[float, Field(ge=1, le=_LARGEST_PX)]


def _whole(value: object) -> object:
    """JSON has one kind of numbers: 512.0 is an integer to it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholePx: TypeAlias = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=_LARGEST_PX)]
FirstPx: TypeAlias = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=_LARGEST_PX)]

_PART = r"[^:\r\n\v\f\x1c-\x1e\x85\u2028\u2029]"
_CLASS_PATTERN = rf"^{_PART}*[^:\s]{_PART}*(:{_PART}*[^:\s]{_PART}*)*$"


ClassName: TypeAlias = Annotated[
    str,
    Field(min_length=1, max_length=1_000, json_schema_extra={"pattern": _CLASS_PATTERN}),
]
"""The name of a class as QuPath takes it; that of a derived one has colons."""


class SlideAsOpen(Strict):
    """The slide that the client has open.

    Attributes:
        uri: as QuPath states it; the server may not be able to read it.
        width, height: of level 0, px.
        mpp_x, mpp_y: µm per level-0 px; null where the client knows none. One counts for both.
        downsamples: level-0 px per pixel of each level that the file has, as QuPath's
            ``getPreferredDownsamples``; without them 1, 2, 4 and so on. Pixels are then asked for
            at a level, so that they are those that the server would have read.
    """

    uri: Annotated[str, Field(min_length=1, max_length=4096)]
    width: WholePx
    height: WholePx
    mpp_x: PixelSize | None = None
    mpp_y: PixelSize | None = None
    downsamples: Annotated[list[Downsample], Field(max_length=_MOST_LEVELS)] = []


class Area(Strict):
    """A rectangle inside of the slide, in whole level-0 px."""

    x: FirstPx
    y: FirstPx
    width: WholePx
    height: WholePx


class Region(Area):
    """The pixels of a rectangle.

    Attributes:
        image: PNG or JPEG that covers the rectangle, whatever its own size; base64.
    """

    image: Annotated[str, Field(min_length=1, json_schema_extra={"contentEncoding": "base64"})]


class NeededRegion(Area):
    """A rectangle of pixels that are needed.

    Attributes:
        width_px, height_px: how large the image should be at least.
    """

    width_px: WholePx
    height_px: WholePx


class Options(Strict):
    """Options that change a result, in addition to the prompts and the model.

    Attributes:
        points_as: whether the points of one feature mark one object, or each its own.
        object_size_um: how large the objects are that bare points mark; null is unknown.
        simplify_um: how far a simplified outline may stray.
        min_area_um2: smaller parts are dropped, smaller holes filled.
        object_type: what the answers are in QuPath.
        class_name: class of all results; null is the class of each prompt.
        candidates: largest number of answers to points; all but the first are ``others`` of it.
    """

    points_as: PointsAs = OutlineOptions.points_as
    object_size_um: Annotated[float, Field(gt=0, le=100_000)] | None = None
    simplify_um: Annotated[float, Field(ge=0, le=1_000)] = OutlineOptions.simplify_um
    min_area_um2: Annotated[float, Field(ge=0, le=1e9)] = OutlineOptions.min_area_um2
    object_type: ObjectType = OutlineOptions.object_type
    class_name: ClassName | None = Field(default=None, alias="class")
    candidates: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MOST_CANDIDATES)] = 1

    @model_validator(mode="after")
    def _check_outline(self) -> Options:
        _ = self.outline  # an OptionError goes through pydantic to the server's problems
        return self

    @property
    def outline(self) -> OutlineOptions:
        """The same as the engine takes it."""
        return OutlineOptions(**self.model_dump())


HAS_FEATURES: JsonValue = {
    "anyOf": [
        {"type": "array", "minItems": 1},
        {"type": "object", "properties": {"features": {"minItems": 1}}},
    ]
}
"""What the schema says of features that must not be empty, beside their type."""

_SOMETHING_TO_OUTLINE: list[JsonValue] = [
    {"required": ["refine"], "properties": {"refine": {"type": "object"}}},
    {"properties": {"prompts": HAS_FEATURES}},
]
"""What the schema says of it beside the types."""


class Choice(Strict):
    """Which prompts of an image are answered.

    The features are then all that is drawn on a plane, with the results there, and each answer says
    its ``prompt``, its ``sources``, below which annotation it belongs (``parent``), and which
    results it ``replaces``.

    Attributes:
        ids: of annotations, or of results; null is everything.
        area: only prompts with a point in it are meant, or those that had one when they were
            answered.
        follow: whether what was answered as it is drawn now is left out, and the answer to fewer
            clicks corrected.
    """

    ids: Annotated[list[str], Field(max_length=100_000)] | None = None
    area: Area | None = None
    follow: bool = False


class SegmentRequest(Strict):
    """``POST /v1/segment``.

    Attributes:
        refine: an earlier answer, or any area, that the points among the prompts correct.
        select: which prompts are answered, where the features are a whole image; null is each.
        adapter: which of the server's models answers, by the name that ``/v1/info`` gives it; null
            is the first.
        regions: the pixels, where the server cannot read the slide itself.
        on_unreadable: "regions" asks for the list of regions to send, where it cannot.
    """

    model_config = ConfigDict(json_schema_extra={"anyOf": _SOMETHING_TO_OUTLINE})

    slide: SlideAsOpen
    prompts: Prompts
    refine: Feature | None = None
    select: Choice | None = None
    adapter: str | None = None
    regions: Annotated[list[Region], Field(min_length=1)] | None = None
    on_unreadable: Literal["problem", "regions"] = "problem"
    options: Options = Field(default_factory=Options)

    @property
    def features(self) -> list[Feature]:
        """The prompts, in whichever form they were sent."""
        return list_features(self.prompts)


class FieldError(BaseModel):
    """An error in one field of a request.

    Attributes:
        field: its path: ``slide.width``, ``regions[0].image``.
    """

    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457, ``application/problem+json``.

    Attributes:
        type: ``urn:wsisam-qupath:problem:`` and a name that stays.
        title: the name for people.
        detail: what is wrong, and how to fix it.
        instance: ``urn:uuid:`` and the id of the request, as the server's log names it.
        errors: of ``invalid``.
        regions: of ``pixels-needed``.
        prompts: of ``pixels-needed``: ids of the prompts that need them.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldError] | None = None
    regions: list[NeededRegion] | None = None
    prompts: list[str] | None = None


class Outlines(FeatureCollection):
    """The answer to prompts.

    Attributes:
        problem: why it ends before all prompts were answered; only in an answer that was sent
            feature by feature, and its last member.
    """

    problem: NotRequired[Problem]


class Health(BaseModel):
    """``GET /healthz``."""

    state: ServerState
    version: str


class ModelInfo(BaseModel):
    """The weights that are loaded."""

    base: str
    base_sha256: str
    adapter: str | None
    adapter_sha256: str | None
    hr_mpp: float
    reads_lr: bool


class LimitsInfo(BaseModel):
    """Limits of the server for the size and duration of one request.

    Attributes:
        streamed_prompts: from so many prompts on, an answer comes feature by feature.
    """

    body_bytes: int
    prompts: int
    streamed_prompts: int
    points: int
    vertices: int
    regions: int
    region_px: int
    all_regions_px: int
    requests_at_once: int
    request_seconds: float


class Info(BaseModel):
    """``GET /v1/info``.

    Attributes:
        protocol: of the interface; a client that was written for another one has to be updated.
        model, device: null until the model is loaded.
        failure: why it cannot be loaded.
        reads_slides: whether the server opens slides itself.
        adapters: names of the models that a request may ask for, the first unless it does.
    """

    name: Literal["wsisam-qupath"] = "wsisam-qupath"
    version: str
    protocol: int = PROTOCOL
    state: ServerState
    failure: str | None
    model: ModelInfo | None
    device: str | None
    reads_slides: bool
    adapters: list[str]
    limits: LimitsInfo
