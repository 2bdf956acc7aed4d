"""Shorten the schedule of a training so that it ends after a number of minutes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wsisam_qupath.files import write_atomically
from wsisam_qupath.files.formats import TRAINING_SCHEDULE
from wsisam_qupath.report.progress import duration

from ..settings import DecoderSettings, Recipe
from .plan import Measured

_NAME = "schedule.json"
_SHARES = tuple(percent / 100 for percent in range(100, 9, -5))
"""Shares of the whole schedule that are tried, the longest first. Less than a tenth teaches
nothing. The last share is trained even if it takes longer than was asked for: the user has already
waited for the measuring, is told how long the training takes, and can stop it."""

_FEWEST_COMPARED = 12


@dataclass(frozen=True)
class Fitted:
    """A recipe that was shortened, and what the whole run takes with it.

    Attributes:
        seconds: from the start of the run, with what was measured.
    """

    recipe: Recipe
    seconds: float


def fit_to_minutes(
    recipe: Recipe, minutes: float, folder: Path, measure: Callable[[], tuple[Measured, float]]
) -> Fitted:
    """Shorten a recipe, to a tenth at most, so that its run takes so many minutes.

    It is never lengthened. What was fitted once is kept in the folder of the run, so that a killed
    run goes on with it.

    Args:
        folder: folder of the run.
        measure: measures what the work takes here, and the seconds that have passed already.

    Raises:
        FormatError: a newer version of this program wrote what is in the folder.
        OutputError: the folder cannot be written.
    """
    asked: dict[str, Any] = {"minutes": minutes, "recipe": recipe.model_dump(mode="json")}
    if (kept := _read(folder / _NAME, asked)) is not None:
        return kept
    measured, gone_s = measure()
    for share in _SHARES:
        shorter = shorten(recipe, share)
        fitted = Fitted(shorter, gone_s + measured.total_seconds(shorter, share))
        if fitted.seconds <= 60 * minutes:
            break
    found = {"fitted": fitted.recipe.model_dump(mode="json"), "seconds": fitted.seconds}
    content = {**TRAINING_SCHEDULE.stated, **asked, **found}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _NAME, json.dumps(content).encode("utf-8"))
    return fitted


def describe_fit(whole: Recipe, fitted: Fitted, minutes: float) -> str:
    """Say how the schedule was shortened."""
    steps = ", ".join(
        f"{name} {fitted.recipe.decoders[name].steps} of {settings.steps} steps"
        for name, settings in whole.decoders.items()
    )
    if fitted.seconds > 60 * minutes:
        return (
            f"{minutes:g} min is too short here. The shortest training that teaches anything takes "
            f"about {duration(fitted.seconds)}: {steps}."
        )
    if fitted.recipe == whole:
        return f"The whole schedule fits into {minutes:g} minutes."
    return f"Shortened to fit into {minutes:g} minutes: {steps}."


def shorten(recipe: Recipe, share: float) -> Recipe:
    """Reduce the steps, views, validations and compared objects of a recipe to a share."""

    def scale(number: int, least: int = 1) -> int:
        return min(number, max(least, round(share * number)))

    def shorten_decoder(settings: DecoderSettings) -> DecoderSettings:
        shorter = {
            "steps": scale(settings.steps),
            "warm_up_steps": scale(settings.warm_up_steps, 0),
        }
        return settings.model_copy(update=shorter)

    per_image = recipe.views_per_image
    shorter: dict[str, Any] = {
        "decoders": {name: shorten_decoder(one) for name, one in recipe.decoders.items()},
        "views": scale(recipe.views),
        "views_per_image": None if per_image is None else scale(per_image),
        "val_views": scale(recipe.val_views),
        "validate_every": scale(recipe.validate_every),
        "compared_objects": scale(recipe.compared_objects, _FEWEST_COMPARED),
    }
    return recipe.model_copy(update=shorter)


def _read(path: Path, asked: dict[str, Any]) -> Fitted | None:
    """Read the schedule that was fitted before, if the same was asked."""
    try:
        content = json.loads(path.read_bytes())
        TRAINING_SCHEDULE.check(path, content)
        if {name: content[name] for name in asked} != asked:
            return None
        return Fitted(Recipe.model_validate(content["fitted"]), float(content["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return None
