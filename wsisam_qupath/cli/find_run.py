"""The ``find`` command: a slide and examples in, all objects like them out."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from shapely.geometry import shape

from ..errors import OptionError, PromptError
from ..files import check_writable, compute_sha256
from ..geojson import Feature, read_examples, read_region, to_feature, write_features
from ..geojson.writing import MEASUREMENTS
from ..inference.find import Search, find_objects
from ..inference.loading import ResolvedModel, resolve
from ..inference.segmenter import Segmenter
from ..options import MIN_SCORE, ModelSpec, OutlineOptions
from ..prompts import Prompt
from ..prompts.results import SerializedResult
from ..report.overlay import write_overlay
from ..report.progress import count_noun, name_cases, show_progress, stderr_console
from ..slide import Slide
from .inputs_outputs import check_outputs, describe_model, open_for_reading
from .segment_part import Part, open_part

_TILE = "tile"
"""Beginning of the names of finished tiles in the part file."""


@dataclass(frozen=True)
class FindRequest:
    """The options of ``find``, under the names that they have on the command line."""

    slide: str
    output: Path
    examples: Path | None = None
    within: Path | None = None
    negatives: Path | None = None
    everything: bool = False
    min_score: float = MIN_SCORE
    most: int | None = None
    mpp: float | None = None
    overlay: Path | None = None
    resume: bool = True
    model: ModelSpec = field(default_factory=ModelSpec)
    options: OutlineOptions = field(default_factory=OutlineOptions)


def run_find(request: FindRequest) -> int:
    """Find the objects of a request. Nothing is written before all of it was checked.

    Returns:
        How many were written.

    Raises:
        WsiSamError: see the error tree.
    """
    console = stderr_console()
    start = time.perf_counter()
    _check(request)
    model = resolve(request.model)
    with open_for_reading(request.slide, request.mpp, console) as slide:
        inputs = {
            "slide": Path(slide.location),
            "examples": request.examples,
            "negatives": request.negatives,
            "areas": request.within,
        }
        check_outputs(inputs, output=request.output, overlay=request.overlay)
        search = _read_search(request, slide, console)
        about = _describe(request, slide, model)
        with open_part(request.output, about, resume=request.resume) as part:
            _search(request, slide, model, search, part, console)
            features = _choose(part, request.most)
            if not features:
                console.print(_explain_nothing(part))
            write_features(request.output, features)
            if request.overlay is not None:
                write_overlay(request.overlay, slide, search.examples, features)
    seconds = time.perf_counter() - start
    console.print(f"{count_noun(len(features), 'object')} found in {seconds:.1f} s.", markup=False)
    return len(features)


def _check(request: FindRequest) -> None:
    """Check what can be checked without the slide."""
    for path in (request.output, request.overlay):
        if path is not None:
            check_writable(path)
    if request.everything == (request.examples is not None):
        raise OptionError(
            "everything",
            "give a file of examples or --everything with the size of the objects, not both."
            if request.everything
            else "there is nothing to look for: give a file of examples, or this option.",
        )
    if request.everything and request.options.object_size_um is None:
        raise OptionError("object_size_um", "is needed to find everything of that size.")


def _read_search(request: FindRequest, slide: Slide, console: Console) -> Search:
    wanted, unwanted = _read_examples(request.examples, slide, console)
    if request.examples is not None and not wanted:
        why = "but objects of classes that end in '*', which are not wanted" if unwanted else ""
        raise PromptError(
            f"{request.examples} holds no example on the slide{', ' * bool(why)}{why}: outline one "
            "to ten objects in QuPath, and export them as GeoJSON."
        )
    further, ignored = _read_examples(request.negatives, slide, console)
    region = None if request.within is None else read_region(request.within)
    return Search(wanted, (*unwanted, *further, *ignored), region, request.min_score)


def _read_examples(
    path: Path | None, slide: Slide, console: Console
) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """Read the objects of a file that lie on the slide: those wanted, and those to ignore."""
    if path is None:
        return (), ()
    found = read_examples(path).clip_to_slide(slide.l0_box)
    name_cases(console, f"Skipped in {path.name}:", found.skipped)
    return found.wanted, found.unwanted


def _describe(request: FindRequest, slide: Slide, model: ResolvedModel) -> dict[str, str]:
    """Describe what decides the finds, so that those of something else are not taken for them."""
    files = (request.examples, request.negatives, request.within)
    return {
        "slide": f"{slide.identity} {slide.mpp}",
        "search": str([path and compute_sha256(path) for path in files]),
        "model": describe_model(model),
        "options": f"{request.options} {request.min_score}",
    }


def _search(
    request: FindRequest,
    slide: Slide,
    model: ResolvedModel,
    search: Search,
    part: Part,
    console: Console,
) -> None:
    """Search the tiles that are left, and keep what is found as it comes."""
    done = part.count(_TILE)
    if done:
        console.print("An earlier run was stopped: this one goes on there.")
    elif part.why_new:
        console.print(f"All is searched again: the unfinished results there are {part.why_new}.")
    with show_progress(console, "Loading the model (the first start prepares it)"):
        segmenter = Segmenter(model.load())
    known = tuple(shape(feature["geometry"]) for feature in part.list_features())
    with show_progress(console, "Searching", done=done) as progress:

        def on_tile(number: int, total: int) -> None:
            part.append(SerializedResult(f"{_TILE} {number}", f"{_TILE} {number}", None, "done"))
            progress.update(done=number, total=total)

        found = find_objects(
            segmenter,
            slide,
            search,
            request.options,
            known=known,
            tiles_done=done,
            on_tile=on_tile,
        )
        try:
            with closing(found) as objects:
                for one in objects:
                    feature = to_feature(one, request.options.object_type)
                    part.append(SerializedResult(one.id, one.prompt.id, feature))
        except KeyboardInterrupt:
            console.print("What was found is kept: the same command goes on there.")
            raise


def _choose(part: Part, most: int | None) -> list[Feature]:
    """Choose what is written of everything that was found, the surest first."""
    found = sorted(part.list_features(), key=lambda feature: -_read_score(feature))
    return found[:most]


def _explain_nothing(part: Part) -> str:
    """Explain what to change when nothing was found."""
    if not part.count(_TILE):
        return "There is nothing but bare glass where objects were looked for: choose another area."
    return (
        "Nothing was found: choose other examples or another size, a lower predicted IoU, or "
        "another area."
    )


def _read_score(feature: Feature) -> float:
    return float(feature["properties"]["measurements"].get(MEASUREMENTS["predicted_iou"], 0.0))
