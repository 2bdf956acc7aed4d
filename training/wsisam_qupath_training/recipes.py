"""Recipes from files and from options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wsisam_qupath.errors import OptionError

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
    """A recipe that comes with this package; None if there is none of that name."""
    package = Path(__file__).parent
    # Beside the package in a source tree, inside of it once it is installed.
    places = (package / "shipped" / "recipes", package.parent / "recipes")
    return next((place / name for place in places if (place / name).is_file()), None)


def make_single_decoder_recipe(
    *,
    scope: str | None = None,
    architecture: str | None = None,
    decoder: str = "plain",
    aggregation: str = "mean",
    hr_share: float = 0.5,
    hr_only: bool = False,
    rate: float | None = None,
) -> Recipe:
    """A recipe with one decoder for all kinds of prompts.

    Args:
        scope: ``adapter`` where the architecture is WSI-SAM, else ``decoder``, if not given.
        architecture: ``wsi-sam``, if not given.
        decoder: ``plain`` or ``enhanced``.
        others: see :class:`.DecoderSettings` and :class:`.DecoderCard`.

    Raises:
        OptionError: they do not go together.
    """
    architecture = architecture or "wsi-sam"
    is_wsi = architecture == "wsi-sam"
    card: dict[str, Any] = {"architecture": architecture, "enhanced": decoder == "enhanced"}
    if is_wsi:
        card |= {
            "aggregation": aggregation,
            "hr_only": hr_only,
            "sam_logits": "none",
            "iou_head": True,
        }
    given: dict[str, Any] = {
        "scope": scope or ("adapter" if is_wsi else "decoder"),
        "card": card,
        "hr_share": hr_share,
    }
    if rate is not None:
        given["wsi_rate"] = rate
    try:
        return one_decoder(DecoderSettings.model_validate(given))
    except ValidationError as exc:
        raise OptionError(
            "scope", f"does not go together with the other options: {_reason(exc)}."
        ) from exc


def override_recipe(
    recipe: Recipe,
    *,
    steps: int | None = None,
    views: int | None = None,
    batch: int | None = None,
    seed: int | None = None,
) -> Recipe:
    """A recipe with other numbers where they are given, in each of its decoders."""
    own = {"steps": steps, "objects_per_step": batch}
    decoders = {
        name: settings.model_copy(update={k: v for k, v in own.items() if v is not None})
        for name, settings in recipe.decoders.items()
    }
    others = {k: v for k, v in (("views", views), ("seed", seed)) if v is not None}
    return recipe.model_copy(update={"decoders": decoders, **others})


def _reason(exc: ValidationError) -> str:
    first = exc.errors()[0]
    return ": ".join([".".join(map(str, first["loc"])), first["msg"]]).removeprefix(": ")
