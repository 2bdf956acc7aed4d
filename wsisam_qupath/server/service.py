"""Process a segmentation request: open the pixels and stream results as they are ready."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ..errors import escape
from ..geojson import prompts_from_geojson, prompts_to_refine, to_feature
from ..geojson.properties import read_path_class
from ..geojson.provenance import add_client
from ..geometry import Mpp
from ..inference.segmenter import Segmenter
from ..options import OutlineOptions
from ..project.batch.selection import Task
from ..prompts import Prompt, PromptSet, clip_to_slide
from ..prompts.results import Empty, Result, list_candidates
from ..slide import PixelSource
from .choosing import Chosen, choose, choose_refinement
from .client_pixels import SentImage, SentPixels
from .config import Limits
from .decoding import decode_images, make_field_problem, make_fields_problem
from .loading import ModelLoader
from .problems import ProblemError, ProblemName
from .queue import DeviceQueue, QueueSlot
from .schemas import FieldError, SegmentRequest, SlideAsOpen
from .slides import Slides, no_pixel_size, pixel_size

Record: TypeAlias = dict[str, Any]
"""A GeoJSON feature: an outline, or with geometry null the reason why there is none."""

_UNREADABLE: set[ProblemName] = {
    "slide-outside",
    "slide-missing",
    "slide-unreadable",
    "slide-differs",
}
"""Problems that the client can solve by sending pixels."""


@dataclass(frozen=True)
class Service:
    """The parts of a server that its requests share.

    Attributes:
        models: the default model, which may still be loading.
        adapters: all models that a request may ask for, by name; if empty, only :attr:`models`.
        slides: slides that may be read here.
        device_queue: the line in front of the device.
    """

    models: ModelLoader
    slides: Slides
    device_queue: DeviceQueue
    limits: Limits
    adapters: Mapping[str, ModelLoader] = field(default_factory=dict)

    def segment(
        self, request: SegmentRequest, slot: QueueSlot, client_name: str = ""
    ) -> Generator[Record, None, None]:
        """Yield results as they are ready; closing the generator stops the work.

        Args:
            client_name: name of the client that asks, for the provenance of the results.

        Raises:
            ProblemError: it cannot be answered as it is; before the first answer.
            SlideError: the slide is damaged at some place.
            ClientGoneError: nobody is there any more.
        """
        segmenter = self.load_segmenter(request.adapter, slot)
        options = request.options.outline
        pixels, trouble = self._pixels(request, slot)
        chosen = _choose(request, segmenter, pixels, options)
        if chosen is None:
            prompt_set = _prompts(request, segmenter, pixels, options, slot.check)
        else:
            prompt_set, options = chosen.prompts, chosen.options
        _check_points(prompt_set.prompts, self.limits)
        if isinstance(pixels, SentPixels):
            _check_pixels(segmenter, pixels, prompt_set.prompts, options, trouble)
        tasks = {} if chosen is None else chosen.tasks
        answers = segmenter.segment(
            pixels, prompt_set.prompts, options, turn=slot.turn, check=slot.check
        )
        with closing(answers):
            for answer in answers:
                record = _record(answer, options, tasks.get(answer.prompt.id))
                yield add_client(record, client_name)
        for skipped in prompt_set.skipped:
            yield without_outline(skipped.id, skipped.reason)
        yield from () if chosen is None else _unanswered(chosen)

    def load_segmenter(self, name: str | None, slot: QueueSlot) -> Segmenter:
        """Get the model that a request asks for, when it is loaded.

        Raises:
            ProblemError: there is none of that name, or the client waits no longer.
            ClientGoneError: nobody is there any more.
        """
        return self.find_model(name).segmenter(slot.patience_s, slot.check_waiting)

    def find_model(self, name: str | None) -> ModelLoader:
        """Find the model that a request asks for.

        Raises:
            ProblemError: there is none of that name.
        """
        if name is None:
            return self.models
        if name not in self.adapters:
            message = f"{escape(name, 100)} is none of {', '.join(self.adapters) or 'no others'}"
            raise make_field_problem("adapter", message)
        return self.adapters[name]

    def _pixels(
        self, request: SegmentRequest, slot: QueueSlot
    ) -> tuple[PixelSource, ProblemError | None]:
        """Choose the source of the pixels, or say why the client is to send them."""
        if request.regions is not None:
            mpp = _read_stated_mpp(request.slide)
            images = decode_images(request.regions, request.slide, self.limits, slot.memory)
            return _read_sent_images(request.slide, mpp, images), None
        try:
            return self.slides.open(request.slide), None
        except ProblemError as problem:
            if problem.name not in _UNREADABLE or request.on_unreadable != "regions":
                raise
            return _read_sent_images(request.slide, _read_stated_mpp(request.slide)), problem


def without_outline(prompt_id: str, reason: str) -> Record:
    """Make the record of a prompt without an outline."""
    return {
        "type": "Feature",
        "id": prompt_id,
        "geometry": None,
        "properties": {"reason": reason},
    }


def _read_stated_mpp(slide: SlideAsOpen) -> Mpp:
    mpp = pixel_size(slide)
    if mpp is None:
        raise no_pixel_size()
    return mpp


def _read_sent_images(
    slide: SlideAsOpen, mpp: Mpp, images: tuple[SentImage, ...] = ()
) -> SentPixels:
    return SentPixels(slide.width, slide.height, mpp, images, tuple(slide.downsamples))


def _choose(
    request: SegmentRequest, segmenter: Segmenter, pixels: PixelSource, options: OutlineOptions
) -> Chosen | None:
    """Choose what is answered of a whole image; None if everything is."""
    if request.select is None:
        return None
    features: list[Record] = [dict(one) for one in request.features]
    if request.refine is not None:
        return choose_refinement(features, dict(request.refine), request.select, options)
    return choose(features, request.select, options, segmenter, pixels)


def _unanswered(chosen: Chosen) -> Iterable[Record]:
    """Make records of prompts that need no outline, and of outlines without a prompt."""
    for row in chosen.rows:
        record = without_outline(row.prompt_id, row.reason)
        yield {**record, "prompt": row.prompt_id, "state": row.state}
    if chosen.loose:
        record = without_outline("", "its prompt is gone")
        yield {**record, "state": "gone", "replaces": list(chosen.loose)}


def _prompts(
    request: SegmentRequest,
    segmenter: Segmenter,
    pixels: PixelSource,
    options: OutlineOptions,
    check: Callable[[], None],
) -> PromptSet:
    planner = segmenter.planner(pixels, options)
    if request.refine is not None:
        found = prompts_to_refine(request.features, request.refine, check)
    else:
        found = prompts_from_geojson(
            request.features,
            points_as=options.points_as,
            hr_l0_box_of=planner.hr_l0_box,
            check=check,
        )
    return _set_class(clip_to_slide(found, pixels.l0_box), options.class_name)


def _check_points(prompts: Iterable[Prompt], limits: Limits) -> None:
    """Check that no prompt would hold the device for long.

    Raises:
        ProblemError: ``invalid``, with the limit.
    """
    found = ((prompt, len(prompt.l0_points)) for prompt in prompts)
    errors = [
        FieldError(
            field="prompts",
            message=f"{escape(prompt.id, 100)} has {count} points, and one object may have "
            f"{limits.points}",
        )
        for prompt, count in found
        if count > limits.points
    ]
    if errors:
        raise make_fields_problem(errors)


def _set_class(prompt_set: PromptSet, class_name: str | None) -> PromptSet:
    """Set the requested class of prompts, if there is one."""
    if class_name is None:
        return prompt_set
    path_class = read_path_class(class_name)
    prompts = tuple(replace(prompt, path_class=path_class) for prompt in prompt_set.prompts)
    return replace(prompt_set, prompts=prompts)


def _check_pixels(
    segmenter: Segmenter,
    pixels: SentPixels,
    prompts: Iterable[Prompt],
    options: OutlineOptions,
    trouble: ProblemError | None,
) -> None:
    """Check that the client has sent all pixels that its prompts need.

    Raises:
        ProblemError: ``pixels-needed``, with the regions.
    """
    asked = list(prompts)
    lacking = pixels.lacks(segmenter.plan_patches(pixels, asked, options))
    if not lacking:
        return
    why = trouble.detail if trouble else "The regions sent do not hold all that the prompts need."
    raise ProblemError(
        "pixels-needed",
        f"{why} Send these regions with the request.",
        regions=lacking,
        prompts=[prompt.id for prompt in asked],
    )


def _record(answer: Result | Empty, options: OutlineOptions, task: Task | None) -> Record:
    if isinstance(answer, Empty):
        record = without_outline(answer.prompt.id, answer.reason)
    else:
        record, *others = (to_feature(one, options.object_type) for one in list_candidates(answer))
        if others:
            record["others"] = others
    if task is None:
        return record
    return {
        **record,
        "prompt": task.prompt.id,
        "sources": list(task.prompt.sources),
        "parent": task.parent_id or None,
        "replaces": list(task.replaces),
    }
