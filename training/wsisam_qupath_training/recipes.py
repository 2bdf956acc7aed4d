"""Read recipes from files, and make them from options."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wsisam_qupath.errors import OptionError
from wsisam_qupath.model.adapter import Adapter
from wsisam_qupath.model.card import DecoderCard, SamLogits
from wsisam_qupath.prompts import PromptKind

from .settings import DecoderSettings, Recipe, one_decoder
from .toml_files import read_toml


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a TOML file, or the one of that name that comes with this package.

    Its tables are those of :class:`.Recipe`.

    Raises:
        PromptError: it cannot be read.
        OptionError: it says something that no recipe can.
    """
    document = read_toml(path if path.exists() else find_shipped(path.name) or path)
    try:
        return Recipe.model_validate(document)
    except ValidationError as exc:
        raise OptionError("recipe", f"{path} is not a recipe ({_reason(exc)}).") from exc


def find_shipped(name: str) -> Path | None:
    """Find a recipe that comes with this package; None if there is none of that name."""
    package = Path(__file__).parent
    # Beside the package in a source tree, inside of it once it is installed.
    places = (package / "shipped" / "recipes", package.parent / "recipes")
    return next((place / name for place in places if (place / name).is_file()), None)


def make_single_decoder_recipe(*, architecture: str = "wsi-sam", **others: Any) -> Recipe:
    """Make a recipe with one decoder for all kinds of prompts.

    Args:
        architecture: ``wsi-sam`` learns what it adds to SAM, ``sam`` a mask decoder, unless a
            scope is given.
        others: further options; see :func:`override_decoders`.

    Raises:
        OptionError: they do not go together.
    """
    settings = DecoderSettings(
        scope="adapter",
        card=DecoderCard(architecture="wsi-sam", sam_logits=SamLogits.NONE, iou_head=True),
    )
    if architecture == "sam":
        settings = DecoderSettings(scope="decoder", card=DecoderCard(architecture="sam"))
    return override_decoders(one_decoder(settings), **others)


def count_steps(n_objects: int) -> int:
    """Choose the number of steps for a number of annotated objects, starting from an adapter."""
    return _limit(40 * math.sqrt(max(n_objects, 1)), 100, 2800)


def fit_recipe(start: Adapter | None, n_objects: int, lora_rank: int = 0) -> Recipe:
    """Fit the recipe to the number of annotations that a user has.

    Without an adapter to start from, that is the one of all that was tried; with one, its decoder
    that answers points is tuned for a time that the data are worth, and mixed with what it was.

    Args:
        n_objects: number of annotated objects to train on.
        lora_rank: see :class:`.DecoderSettings`. With it the matrices learn alone, under all
            decoders of the adapter. Those of WSI-SAM, which fuse features of the encoder, learn
            with it: the one that answers points does, and then answers every kind of prompt, as
            the base's does where there is no adapter.
    """
    recipe = Recipe() if start is None else _fit_to_start(start, n_objects)
    if not lora_rank:
        return recipe
    (settings,) = recipe.decoders.values()
    kept = recipe.model_dump(exclude={"decoders", "blends", "routes"})
    own: dict[str, Any] = {"lora_rank": lora_rank}
    if start is not None and not any(c.fuses_features for c in start.card.decoders.values()):
        own |= {"scope": "adapter", "card": DecoderCard(architecture="sam")}
    return one_decoder(settings.model_copy(update=own), **kept)


def _fit_to_start(start: Adapter, n_objects: int) -> Recipe:
    root = math.sqrt(max(n_objects, 1))
    steps = count_steps(n_objects)
    views = _limit(20 * root, 40, 1000)
    card = start.card.decoders[start.card.routes[PromptKind.POINTS].last_decoder]
    decoder = DecoderSettings(
        scope="decoder",
        card=card,
        steps=steps,
        decoder_rate=5e-5,
        prompt_rate=2e-4,
        warm_up_steps=steps // 10,
        ema=0.99,
        start_shares=(0.0, 0.25, 0.5, 0.75),
    )
    numbers: dict[str, Any] = {
        "views": views,
        "val_views": _limit(views / 5, 12, 60),
        "validate_every": max(50, -(-steps // 4)),
        "hr_mpp": start.card.hr_mpp,
        "cross_validated_below": 5,
    }
    if card.architecture == "wsi-sam" or card.enhanced:
        return one_decoder(decoder, **numbers)
    return Recipe(decoders={"points": decoder}, **numbers)


def _limit(number: float, least: int, most: int) -> int:
    return min(most, max(least, round(number)))


def override_decoders(
    recipe: Recipe,
    *,
    scope: str | None = None,
    architecture: str | None = None,
    decoder: str | None = None,
    aggregation: str | None = None,
    hr_share: float | None = None,
    hr_only: bool | None = None,
    rate: float | None = None,
    lora_rank: int | None = None,
) -> Recipe:
    """Replace the given settings of networks and losses in each decoder of a recipe.

    Args:
        decoder: variant of SAM's decoder, ``plain`` or ``enhanced``.
        rate: learning rate of the parts that WSI-SAM adds.
        scope, hr_share, lora_rank: see :class:`.DecoderSettings`; for the others see
            :class:`.DecoderCard`.

    Raises:
        OptionError: they do not go together.
    """
    given: dict[str, object] = {
        "scope": scope,
        "architecture": architecture,
        "decoder": decoder,
        "aggregation": aggregation,
        "hr_share": hr_share,
        "hr_only": hr_only,
        "rate": rate,
        "lora_rank": lora_rank,
    }
    own = {"scope": scope, "hr_share": hr_share, "wsi_rate": rate, "lora_rank": lora_rank}
    card = {
        "architecture": architecture,
        "enhanced": None if decoder is None else decoder == "enhanced",
        "aggregation": aggregation,
        "hr_only": hr_only,
    }
    document = recipe.model_dump()
    for settings in document["decoders"].values():
        settings.update(_drop_none(own))
        settings["card"].update(_drop_none(card))
    try:
        return Recipe.model_validate(document)
    except ValidationError as exc:
        first = next(iter(_drop_none(given)), "recipe")
        raise OptionError(first, f"does not fit the recipe ({_reason(exc)}).") from exc


def override_numbers(
    recipe: Recipe,
    *,
    steps: int | None = None,
    views: int | None = None,
    batch: int | None = None,
    seed: int | None = None,
) -> Recipe:
    """Replace the given numbers in a recipe, in each of its decoders."""
    own = _drop_none({"steps": steps, "objects_per_step": batch})
    decoders = {name: settings.model_copy(update=own) for name, settings in recipe.decoders.items()}
    others: dict[str, Any] = _drop_none({"views": views, "seed": seed})
    if views is not None:
        others["views_per_image"] = None
    return recipe.model_copy(update={"decoders": decoders, **others})


def keep_scale(recipe: Recipe, start: Adapter | None) -> Recipe:
    """Keep the scale of the start where its decoders stay as they are: they are asked at it."""
    if start is None or not recipe.keeps_decoders:
        return recipe
    return recipe.model_copy(update={"hr_mpp": start.card.hr_mpp})


def _drop_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _reason(exc: ValidationError) -> str:
    first = exc.errors()[0]
    said = first["msg"].removeprefix("Value error, ")  # Pydantic's word before one of ours
    return ": ".join([".".join(map(str, first["loc"])), said]).removeprefix(": ")
