"""Run ``train``: read, split, cache, train each decoder, put the adapter together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from rich.console import Console

from wsisam_qupath.errors import OptionError
from wsisam_qupath.inference.loading import ResolvedModel, resolve
from wsisam_qupath.report.progress import show_progress

from ..settings import Recipe
from ..sources.collection import Collection
from ..sources.reading import read_dataset
from ..trainer.distributed import DistributedContext, open_context, run_first_process_alone
from ..trainer.run_folder import hold_folders
from ..trainer.starting import check_start
from ..trainer.training_data import open_data
from ..trainer.write_adapter import WrittenAdapter
from .folds import Fold, make_folds, train_on_all
from .outcome import conclude
from .plan import Measured, describe_views
from .request import TrainRequest, check_datasets, check_request, choose_recipe, tell_data
from .schedule import describe_fit, fit_to_minutes
from .training_run import TrainingRun


def run_train(request: TrainRequest, console: Console) -> WrittenAdapter | None:
    """Train an adapter, or go on where an interrupted run stopped.

    Returns:
        What was written; None where ``only`` left other decoders to train, and in all but the
        first of several processes.

    Raises:
        WsiSamError: see the modules that each step comes from.
    """
    with (
        _open(request, console) as (training, collection),
        hold_folders(map(training.folder, training.wanted), training.context),
    ):
        context = training.context
        # Two processes that fill one cache would undo each other's files.
        with run_first_process_alone(context):
            training.encode()
        just = {name: training.train(name) for name in training.wanted}
        if context.rank or (trained := training.collect_trained(just)) is None:
            return None
        images = tuple(f for f in collection.dataset.images if f.dataset not in request.without)
        return conclude(training, trained, images)


def run_plan(request: TrainRequest, console: Console) -> str:
    """Describe what :func:`run_train` would read, keep and take; only measures for a moment.

    Raises:
        WsiSamError: see the modules that each step comes from.
    """
    with _open(request, console) as (training, _):
        return "\n".join(training.plan())


@contextmanager
def _open(request: TrainRequest, console: Console) -> Iterator[tuple[TrainingRun, Collection]]:
    """Open the training that a request describes, with its slides, for the time of the body."""
    started = time.monotonic()
    check_request(request)
    with show_progress(console, "Reading annotations"):
        collection = read_dataset(request.data, options=request.options)
    check_datasets(collection.dataset, request.without)
    model = resolve(request.model)
    recipe = choose_recipe(request, model.adapter, collection.dataset)
    for settings in recipe.decoders.values():
        check_start(settings, model.adapter)  # now, and not when all views are encoded
    if folds := make_folds(collection.dataset, recipe, request.without):
        collection = replace(collection, dataset=train_on_all(collection.dataset))
        recipe = choose_recipe(request, model.adapter, collection.dataset)
    tell_data(collection.dataset, console, has_folds=bool(folds))
    with open_context(request.model.device, request.model.threads) as context:
        if request.learning_curve and context.world > 1:
            raise OptionError("learning_curve", "is for one process: train without torchrun.")
        opening = _Opening(request, collection, folds, model, context, console)
        if request.minutes is not None:
            # All processes train what the first one fitted.
            with run_first_process_alone(context):
                recipe = _fit(opening, recipe, request.minutes, started)
        with opening.open(recipe) as training:
            images = len(training.parts["train"].images)
            rounds = len(training.rounds)
            views = describe_views(training.views, images, request.cache_gb, folds=rounds)
            console.print(views, markup=False)
            if training.is_cross_validated:
                console.print(
                    "There are few patients to validate on, so training is cross-validated: "
                    f"{rounds} times, each time without some of the images. The "
                    "adapter is the mean of the results."
                )
            yield training, collection


@dataclass(frozen=True)
class _Opening:
    """Everything that a training needs besides its recipe."""

    request: TrainRequest
    collection: Collection
    folds: tuple[Fold, ...]
    model: ResolvedModel
    context: DistributedContext
    console: Console

    @contextmanager
    def open(self, recipe: Recipe) -> Iterator[TrainingRun]:
        """Open the training by a recipe, with its slides, for the time of the body."""
        limit_gb, base = self.request.cache_gb, self.model.base
        with ExitStack() as opened:
            with show_progress(self.console, "Choosing views"):
                data = open_data(self.collection, recipe, base, limit_gb=limit_gb)
                parts, views = opened.enter_context(data)
            yield TrainingRun(
                self.request,
                recipe,
                self.model,
                parts,
                views,
                self.context,
                self.console,
                self.folds,
            )


def _fit(opening: _Opening, recipe: Recipe, minutes: float, started: float) -> Recipe:
    """Shorten the recipe if the run would take longer than the requested minutes."""

    def measure() -> tuple[Measured, float]:
        with (
            opening.open(recipe) as training,
            hold_folders(map(training.folder, training.wanted), training.context),
        ):
            measured = training.measure()
        return measured, time.monotonic() - started

    fitted = fit_to_minutes(recipe, minutes, opening.request.run_folder, measure)
    opening.console.print(describe_fit(recipe, fitted, minutes), markup=False)
    return fitted.recipe
