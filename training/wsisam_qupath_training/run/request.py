"""What a user asks ``train`` to do, the checks of it, and messages about the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from wsisam_qupath.errors import OptionError
from wsisam_qupath.files import check_writable
from wsisam_qupath.files.names import compose
from wsisam_qupath.model.adapter import Adapter
from wsisam_qupath.model.shipped import find_shipped_adapter
from wsisam_qupath.options import ModelSpec
from wsisam_qupath.report.progress import count_noun, name_cases

from ..dataset import Dataset
from ..recipes import fit_recipe, keep_scale, override_numbers
from ..settings import Recipe
from ..sources.reading import DatasetOptions

_FEW_OBJECTS = 30
"""With fewer objects, what is learned can hardly be told from chance."""


@dataclass(frozen=True)
class TrainRequest:
    """What a user asks ``train`` to do.

    Attributes:
        data, options: annotated images, and how to read them; see :func:`.read_dataset`.
        out: adapter file to write; its split and report lie beside it.
        recipe: all settings; None chooses those that fit the data and the start, see
            :func:`.fit_recipe`.
        numbers: numbers of the recipe that the user gave, by the names of
            :func:`.override_numbers`.
        lora_rank: rank of the matrices that learn beside the image encoder's layers, in a recipe
            that is chosen here; another one says it itself. See :func:`.fit_recipe`.
        model: base to train on, adapter that training starts from (none is the bare base), and
            device.
        run: folder of the checkpoints; None is one beside the adapter.
        cache: folder of the features; None is one in the program's own cache.
        cache_gb: largest size of the cached features, GiB; where they do not fit, fewer views are
            used.
        without: names of datasets that are not trained on.
        only: name of the only decoder to train; the adapter is written when all are trained.
        licence: license and source of the data, for the adapter's card.
        minutes: longest time of the run; a longer schedule is shortened. None leaves it.
        learning_curve: whether to train on some of the objects too, to say what more are worth.
    """

    data: Path
    out: Path
    options: DatasetOptions = field(default_factory=DatasetOptions)
    recipe: Recipe | None = None
    numbers: Mapping[str, int] = field(default_factory=dict)
    lora_rank: int = 0
    model: ModelSpec = field(default_factory=lambda: ModelSpec(adapter=None))
    run: Path | None = None
    cache: Path | None = None
    cache_gb: float = 20.0
    without: tuple[str, ...] = ()
    only: str | None = None
    licence: str = ""
    minutes: float | None = None
    learning_curve: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "without", tuple(map(compose, self.without)))

    @property
    def run_folder(self) -> Path:
        """Folder of the checkpoints."""
        return self.run or self.out.with_suffix(".training")

    def find_start(self) -> Path | None:
        """Find the adapter that the result is compared with, whether there is such a file or not.

        That is the one that training starts from, or the one that ships for the base.
        """
        start = self.model.adapter
        return start if isinstance(start, Path) else find_shipped_adapter(self.model.base)


def check_request(request: TrainRequest) -> None:
    """Check everything that can be known before anything is read.

    Raises:
        OptionError: a name is none that it could be.
        OutputError: the adapter could not be written.
    """
    if request.out.suffix != ".safetensors":
        raise OptionError("out", f"{request.out} does not end in .safetensors.")
    start = request.find_start()
    if start is not None and _is_same_file(start, request.out):
        raise OptionError(
            "out",
            f"{request.out} is the adapter before training, which the result is compared with "
            "and mixed with: give the new one another name.",
        )
    check_writable(request.out)


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


def choose_recipe(request: TrainRequest, start: Adapter | None, dataset: Dataset) -> Recipe:
    """Choose the recipe of a request: its own, or one that fits the data.

    Args:
        start: adapter that training starts from; None is the bare base.

    Raises:
        OptionError: the recipe has no decoder of the name to train alone.
    """
    n_objects = dataset.count_objects("train", request.without)
    recipe = request.recipe or fit_recipe(start, n_objects, request.lora_rank)
    recipe = keep_scale(override_numbers(recipe, **request.numbers), start)
    if request.only is not None and request.only not in recipe.decoders:
        raise OptionError(
            "only", f"{request.only} is none of the recipe's {', '.join(recipe.decoders)}."
        )
    return recipe


def check_datasets(dataset: Dataset, without: Sequence[str]) -> None:
    """Check that there are datasets of these names.

    Raises:
        OptionError: there is none.
    """
    datasets = {image.dataset for image in dataset.images}
    if unknown := sorted(set(without) - datasets):
        raise OptionError(
            "without", f"{', '.join(unknown)} is none of {', '.join(sorted(datasets))}."
        )


def tell_data(dataset: Dataset, console: Console, *, has_folds: bool = False) -> None:
    """Print what was found, left out and repaired, and how it is divided.

    Args:
        has_folds: whether all images are trained on, and some held out in each training.
    """
    name_cases(console, "Left out", dataset.damaged)
    if dataset.repaired:
        console.print(
            f"Repaired {count_noun(dataset.repaired, 'outline')} that crossed themselves."
        )
    for note in dataset.notes:
        console.print(note, markup=False)
    if len(dataset.classes) > 1:
        counts = ", ".join(f"{count} {name}" for name, count in dataset.classes.items())
        console.print(f"Objects by class: {counts}.", markup=False)
    n_objects = dataset.count_objects("train")
    if n_objects < _FEW_OBJECTS:
        console.print(
            f"Only {count_noun(n_objects, 'object')} to train on: do not expect much of that. "
            f"{_FEW_OBJECTS} or more are better, on several slides."
        )
    parts = [f.part for f in dataset.images]
    images = count_noun(len(parts), "image")
    if has_folds:
        console.print(f"{images} to train on, none left for a test.")
        return
    console.print(
        f"{images}: {parts.count('train')} to train on, {parts.count('val')} to validate on, "
        f"{parts.count('test')} left for a test."
    )
