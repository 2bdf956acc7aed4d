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
"""Media type of RFC 8142: each record is RS, a feature, LF."""

PROBLEM_JSON = "application/problem+json"
RECORD_SEPARATOR = b"\x1e"

PROBLEM_PREFIX = "urn:wsisam-qupath:problem:"

PROTOCOL = 2
"""Version of the interface, raised when an older client would misread an answer, or be misread. A
client of another protocol refuses to work with the server."""

STREAMED_PROMPTS_MIN = 100
"""Number of prompts from which a collection is sent feature by feature, as each is ready."""

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
    """List the features, in whichever form they were sent."""
    return prompts if isinstance(prompts, list) else prompts["features"]


PixelSize: TypeAlias = Annotated[float, Field(ge=0.01, le=100)]
Downsample: TypeAlias = Annotated[float, Field(ge=1, le=_LARGEST_PX)]


def _whole(value: object) -> object:
    """Read a whole number written as 512.0: JSON has one kind of numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholePx: TypeAlias = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=_LARGEST_PX)]
FirstPx: TypeAlias = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=_LARGEST_PX)]

_PART = r"[^:\r\n\v\f\x1c-\x1e\x85\u2028\u2029]"
_CLASS_PATTERN = rf"^{_PART}*[^:\s]{_PART}*(:{_PART}*[^:\s]{_PART}*)*$"


ClassName: TypeAlias = Annotated[
    str,
    Field(min_length=1, max_length=1_000, json_schema_extra={"pattern": _CLASS_PATTERN}),
]
"""Name of a class as QuPath accepts it; that of a derived class has colons."""


class SlideAsOpen(Strict):
    """The slide that the client has open.

    Attributes:
        uri: URI as QuPath states it; the server may not be able to read it.
        width, height: size of level 0, px.
        mpp_x, mpp_y: µm per level-0 px along each axis; null if the client knows none. One value
            counts for both.
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
        image: PNG or JPEG of the rectangle, of any size; base64.
    """

    image: Annotated[str, Field(min_length=1, json_schema_extra={"contentEncoding": "base64"})]


class NeededRegion(Area):
    """A rectangle with the pixels that are still needed.

    Attributes:
        width_px, height_px: least size of the image.
    """

    width_px: WholePx
    height_px: WholePx


class Options(Strict):
    """Options that change a result, in addition to the prompts and the model.

    Attributes:
        points_as: whether the points of one feature mark one object, or each its own.
        object_size_um: size of the objects that bare points mark, µm; null is unknown.
        simplify_um: how far a simplified outline may stray, µm.
        min_area_um2: smaller parts are dropped and smaller holes filled, µm².
        object_type: type of the results in QuPath.
        class_name: class of all results; null is the class of each prompt.
        candidates: largest number of answers to points; all but the first are among its ``others``.
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
        """The options as the model takes them."""
        return OutlineOptions(**self.model_dump())


HAS_FEATURES: JsonValue = {
    "anyOf": [
        {"type": "array", "minItems": 1},
        {"type": "object", "properties": {"features": {"minItems": 1}}},
    ]
}
"""Condition in the JSON schema that features must not be empty, in addition to their type."""

_SOMETHING_TO_OUTLINE: list[JsonValue] = [
    {"required": ["refine"], "properties": {"refine": {"type": "object"}}},
    {"properties": {"prompts": HAS_FEATURES}},
]
"""Condition in the JSON schema, in addition to the types."""


class Choice(Strict):
    """Which prompts of an image are answered.

    The features are then all that is drawn on a plane, with the results there, and each answer says
    its ``prompt``, its ``sources``, below which annotation it belongs (``parent``), and which
    results it ``replaces``.

    Attributes:
        ids: ids of annotations, or of results; null is everything.
        again: whether what the ids name is answered again. Otherwise, and where there are no ids,
            only what has no answer is answered, or has one by another model or of another class or
            type.
        area: only prompts with a point in it are chosen, or that had one when they were answered.
        follow: whether what was answered as it is drawn now is left out, and the answer to fewer
            clicks is corrected.
    """

    ids: Annotated[list[str], Field(max_length=100_000)] | None = None
    again: bool = True
    area: Area | None = None
    follow: bool = False


class SegmentRequest(Strict):
    """Body of ``POST /v1/segment``.

    Attributes:
        refine: an earlier answer, or any area, that the points among the prompts correct.
        select: which prompts are answered, if the features are a whole image; null is each.
        adapter: which of the server's models answers, by the name that ``/v1/info`` gives it; null
            is the first.
        regions: pixels, if the server cannot read the slide itself.
        on_unreadable: what to do if the slide cannot be read: "regions" asks for the list of
            regions to send.
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
        field: path of the field: ``slide.width``, ``regions[0].image``.
    """

    field: str
    message: str


class Problem(BaseModel):
    """An error in the form of RFC 9457, ``application/problem+json``.

    Attributes:
        type: ``urn:wsisam-qupath:problem:`` and a name that never changes.
        title: name of the problem for people.
        detail: what is wrong, and how to fix it.
        instance: ``urn:uuid:`` and the id of the request, as in the server's log.
        errors: errors by field, of ``invalid``.
        regions: regions to send, of ``pixels-needed``.
        prompts: ids of the prompts that need those regions, of ``pixels-needed``.
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
        problem: why the answer ends before all prompts were answered; only in an answer that was
            sent feature by feature, as its last member.
    """

    problem: NotRequired[Problem]


class Health(BaseModel):
    """Answer of ``GET /healthz``."""

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
        streamed_prompts: number of prompts from which an answer comes feature by feature.
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
    """Answer of ``GET /v1/info``.

    Attributes:
        protocol: version of the interface; a client written for another one has to be updated.
        model, device: model and device; null until the model is loaded.
        failure: why the model cannot be loaded.
        reads_slides: whether the server opens slides itself.
        adapters: names of the models that a request may ask for; the first one is the default.
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
