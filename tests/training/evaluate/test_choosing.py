"""Which objects are evaluated, and what class they are of."""

from pathlib import Path

import pytest
import shapely

from fixtures.evaluate_models import make_image
from wsisam_qupath.errors import PromptError
from wsisam_qupath_training.evaluate.choosing import limit_objects, put_slide_classes, select_part


def test_a_part_of_the_split_is_chosen_or_said_to_be_missing(tmp_path: Path) -> None:
    held_out = make_image(tmp_path, "a", group="p1", part="test")
    trained = make_image(tmp_path, "b", group="p2", part="train")

    assert select_part([held_out, trained], "test") == ((held_out,), None)
    assert select_part([held_out, trained], "all") == ((held_out, trained), None)
    images, remark = select_part([trained], "test")
    assert images == (trained,)
    assert remark is not None
    with pytest.raises(PromptError, match="No object is in the val part"):
        select_part([held_out], "val")


def test_a_limit_takes_as_many_from_each_image_of_each_dataset(tmp_path: Path) -> None:
    rows = [shapely.box(10, y, 40, y + 5) for y in range(10, 290, 10)]
    images = [
        make_image(
            tmp_path, f"{dataset}{n}", dataset=dataset, outlines=rows, class_names=["x"] * len(rows)
        )
        for dataset in ("a", "b")
        for n in range(3)
    ]

    chosen = limit_objects(images, 7, seed=0)

    counts = {one.image.name: len(one.truths) for one in chosen}
    assert sorted(n for name, n in counts.items() if name[0] == "a") == [2, 2, 3]
    assert sum(counts.values()) == 14
    assert limit_objects(images, 7, seed=0) == chosen
    assert limit_objects(images, 7, seed=1) != chosen
    assert sum(len(one.truths) for one in limit_objects(images, None, seed=0)) == 6 * len(rows)


def test_slides_have_the_class_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "classes.tsv"
    table.write_text("a\tIDC\n")
    images = (make_image(tmp_path, "a"), make_image(tmp_path, "b"))

    first, second = put_slide_classes(images, table)

    assert {truth.class_name for truth in first.truths} == {"IDC"}
    assert second == images[1]
    table.write_text("other\tIDC\n")
    with pytest.raises(PromptError, match="names none of the images"):
        put_slide_classes(images, table)
