"""Where there are few patients, each is held out once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.evaluate_models import SQUARE
from fixtures.training_models import TUNED_SAM
from wsisam_qupath.slide import SlideReference
from wsisam_qupath_training.dataset import AnnotatedImage, Dataset, Truth
from wsisam_qupath_training.run.folds import make_folds, train_on_all
from wsisam_qupath_training.run.plan import describe_views
from wsisam_qupath_training.settings import Recipe, one_decoder
from wsisam_qupath_training.trainer.training_data import ViewCounts

NOWHERE = SlideReference("nowhere.tif")  # no pixel of it is read
GLAND = Truth("1", SQUARE, "gland")
RECIPE = one_decoder(TUNED_SAM, cross_validated_below=5)


def dataset(*groups: str, has_own_split: bool = False) -> Dataset:
    """An image for each group that is named; the last one is to validate on."""
    images = [
        AnnotatedImage(f"{number}.tif", "set", group, NOWHERE, (GLAND,), part="train")
        for number, group in enumerate(groups)
    ]
    return Dataset((*images[:-1], replace(images[-1], part="val")), has_own_split=has_own_split)


def names(images: tuple[AnnotatedImage, ...], recipe: Recipe = RECIPE) -> list[set[str]]:
    folds = make_folds(Dataset(images), recipe, ())
    return [{images[index].name for index in fold.select(images)} for fold in folds]


def test_each_patient_is_held_out_once_and_never_divided() -> None:
    images = dataset("a", "b", "a", "c").images

    assert names(images) == [{"0.tif", "2.tif"}, {"1.tif"}, {"3.tif"}]


def test_four_patients_are_three_folds() -> None:
    assert names(dataset("a", "b", "c", "d").images) == [{"0.tif", "3.tif"}, {"1.tif"}, {"2.tif"}]


def test_images_of_one_patient_are_divided() -> None:
    assert names(dataset("a", "a").images) == [{"0.tif"}, {"1.tif"}]


@pytest.mark.parametrize("groups", ["a", "abcde"])
def test_one_image_and_five_patients_are_not_cross_validated(groups: str) -> None:
    assert not make_folds(dataset(*groups), RECIPE, ())


def test_a_split_that_is_given_stays() -> None:
    assert not make_folds(dataset("a", "b", "c", has_own_split=True), RECIPE, ())


def test_what_is_left_for_a_test_or_left_out_is_in_no_fold() -> None:
    images = dataset("a", "b", "c").images
    test = (replace(images[0], part="test"), *images[1:])

    assert names(test) == [{"1.tif"}, {"2.tif"}]
    assert not make_folds(Dataset(images), RECIPE, {images[0].dataset})


def test_a_recipe_without_the_setting_is_not_cross_validated() -> None:
    assert not make_folds(dataset("a", "b"), one_decoder(TUNED_SAM), ())


def test_all_are_trained_on_but_those_left_for_a_test() -> None:
    images = dataset("a", "b", "c").images

    trained = train_on_all(Dataset((replace(images[0], part="test"), *images[1:])))

    assert [image.part for image in trained.images] == ["test", "train", "train"]


def test_a_cross_validation_says_nothing_of_no_views_to_validate_on() -> None:
    views = ViewCounts(train=10, val=0, wanted=10, n_bytes=1 << 30)

    text = describe_views(views, 2, 20.0, folds=2)

    assert text == "10 views to train on (5.0 of each image): 1.0 GiB of features on the disk."
