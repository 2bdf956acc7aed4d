"""Patients are wholly in one part, and a split that was written can be used again."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.letters import FORMS
from fixtures.training_data import OUTLINES
from wsisam_qupath.errors import FormatError, OutputError, PromptError
from wsisam_qupath.files.names import compose
from wsisam_qupath.slide import SlideReference
from wsisam_qupath_training.dataset import PARTS, AnnotatedImage, Part, Truth
from wsisam_qupath_training.sources.groups import group_by_pattern, group_by_table
from wsisam_qupath_training.splits import (
    SplitRule,
    assign_parts,
    divide,
    divide_fully,
    group_by_part,
    read_groups,
    read_split,
    split_table,
    write_split,
)

TRUTHS = (Truth("1", OUTLINES[0], "Gland"),)
CATCH = "Slide;Dataset;Scanner\nSCC_01_1.svs;train;ScanScope v1\nSCC_02_1.svs;val;ScanScope v1\n"

names = (
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1)
    .map(compose)
    .filter(lambda name: name == name.strip())
)
"""As images have them: their letters are composed, as a test below shows."""


def image(
    name: str, group: str = "", *, part: Part | None = None, truths: tuple[Truth, ...] = TRUTHS
) -> AnnotatedImage:
    return AnnotatedImage(name, "set", group or name, SlideReference("/a.tif"), truths, part=part)


def images(*groups: str) -> list[AnnotatedImage]:
    return [image(f"{n}-{group}", group) for n, group in enumerate(groups)]


def parts_by_group(found: tuple[AnnotatedImage, ...]) -> dict[str, set[Part | None]]:
    parts = defaultdict(set)
    for one in found:
        parts[one.group].add(one.part)
    return parts


@given(
    st.lists(names, min_size=1, max_size=12),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.integers(0, 9),
)
def test_no_group_is_in_two_parts(groups: list[str], val: float, test: float, seed: int) -> None:
    rule = SplitRule(val_share=val, test_share=test, seed=seed)

    for split in (divide, divide_fully):
        found = split(images(*groups, *groups), rule)

        assert all(len(parts) == 1 for parts in parts_by_group(found).values())
        assert sum(map(len, group_by_part(found).values())) == 2 * len(groups)


@given(
    st.lists(names, min_size=1, max_size=6), st.floats(0.01, 1), st.floats(0, 1), st.integers(0, 99)
)
def test_there_is_always_something_to_train_on_and_with_two_groups_to_validate_on(
    groups: list[str], val: float, test: float, seed: int
) -> None:
    rule = SplitRule(val_share=val, test_share=min(test, 1 - val), seed=seed)

    parts = group_by_part(divide_fully(images(*groups), rule))

    assert parts["train"]
    assert bool(parts["val"]) or len(set(groups)) == 1


def test_with_one_group_all_of_it_is_to_train_on() -> None:
    parts = group_by_part(divide_fully(images("a", "a"), SplitRule(val_share=1.0)))

    assert {part: len(members) for part, members in parts.items()} == {
        "train": 2,
        "val": 0,
        "test": 0,
    }


def test_a_group_without_objects_is_not_what_is_validated_on() -> None:
    empty = [image(f"empty {n}", truths=()) for n in range(20)]

    parts = group_by_part(divide_fully([*images("a", "b"), *empty], SplitRule(val_share=0.01)))

    assert len([one for one in parts["val"] if one.truths]) == 1
    assert len([one for one in parts["train"] if one.truths]) == 1


def test_parts_that_the_data_give_stay() -> None:
    given_parts = [image("a", part="test"), image("b", part="test"), image("c"), image("d")]

    found = divide_fully(given_parts, SplitRule(val_share=0.01))

    assert [one.part for one in found[:2]] == ["test", "test"]
    assert {one.part for one in found[2:]} == {"train", "val"}


def test_more_patients_move_none_of_the_others() -> None:
    rule = SplitRule(val_share=0.3, test_share=0.2)
    many = images(*"abcdefghijklmnopqrst")

    assert divide([*many, *images("new")], rule)[: len(many)] == divide(many, rule)


def test_shares_are_about_as_large_as_asked_for() -> None:
    many = [image(str(n)) for n in range(2000)]

    parts = group_by_part(divide(many, SplitRule(val_share=0.15, test_share=0.2)))

    assert len(parts["val"]) == pytest.approx(300, abs=50)
    assert len(parts["test"]) == pytest.approx(400, abs=60)


def test_another_seed_is_another_split() -> None:
    many = images(*"abcdefghijklmnopqrst")

    one, other = (divide(many, SplitRule(val_share=0.5, seed=seed)) for seed in (0, 1))

    assert one != other


def test_a_rule_names_groups_that_are_there() -> None:
    with pytest.raises(PromptError, match="names x, but there are only a, b"):
        divide(images("a", "b"), SplitRule(test=("x",)))


def test_a_patient_in_two_parts_is_refused() -> None:
    twice = [image("one", "p", part="train"), image("two", "p", part="test")]

    with pytest.raises(PromptError, match="p of set is in two parts of the split"):
        group_by_part(twice)


@given(st.dictionaries(names, st.sampled_from(PARTS), min_size=1, max_size=8))
def test_a_split_that_was_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, parts: dict[str, Part]
) -> None:
    found = [image(name, part=part) for name, part in parts.items()]
    file = tmp_path_factory.mktemp("split") / "split.tsv"

    write_split(file, found)

    assert assign_parts([image(name) for name in parts], file).images == tuple(found)


def test_a_split_is_read_again_after_the_folder_was_renamed(tmp_path: Path) -> None:
    file = tmp_path / "split.tsv"
    write_split(file, [image("a.svs", part="train"), image("b.svs", part="val")])

    found = assign_parts([replace(image("b.svs"), dataset="renamed")], file)

    assert [one.part for one in found.images] == ["val"]


def test_a_split_says_dataset_group_part_and_number_of_objects() -> None:
    table = split_table([image("a.svs", "patient 1", part="val")])

    assert (
        table == "# format 2\ndataset\tfield\tgroup\tpart\tobjects\nset\ta.svs\tpatient 1\tval\t1\n"
    )


def test_a_split_of_version_0_1_is_read_and_one_of_a_newer_version_refused(tmp_path: Path) -> None:
    early, newer = tmp_path / "early.tsv", tmp_path / "newer.tsv"
    rows = "dataset\tfield\tgroup\tpart\tobjects\nset\ta.svs\tpatient 1\tval\t1\n"
    early.write_text(rows, encoding="utf-8")
    newer.write_text(f"# format 3\n{rows}", encoding="utf-8")

    assert read_split(early) == {"a": "val"}
    with pytest.raises(FormatError, match=r"newer\.tsv is the table of a split in format 3"):
        read_split(newer)


def test_a_split_is_not_written_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="There is no folder"):
        write_split(tmp_path / "absent" / "split.tsv", [image("a")])


def test_catchs_own_table_is_read(tmp_path: Path) -> None:
    file = tmp_path / "datasets.csv"
    file.write_text(CATCH, encoding="utf-8")

    assert read_split(file) == {"SCC_01_1": "train", "SCC_02_1": "val"}


@pytest.mark.parametrize("table", ["a.svs,train\nb,val\n", "name\tpart\na\tTrain\nb.svs\tVAL\n"])
def test_any_table_of_two_columns_will_do(tmp_path: Path, table: str) -> None:
    file = tmp_path / "split.csv"
    file.write_text(table, encoding="utf-8-sig")

    found = assign_parts([image("a"), image("b.svs")], file)

    assert [one.part for one in found.images] == ["train", "val"]
    assert found.damaged == ()


def test_what_only_one_of_split_and_data_names_is_named(tmp_path: Path) -> None:
    file = tmp_path / "split.csv"
    file.write_text("a;train\nx;val\ngone.svs;test\n", encoding="utf-8")

    found = assign_parts([image("a"), image("b")], file, missing=["gone.svs"])

    assert [one.name for one in found.images] == ["a"]
    assert [(case.id, case.reason) for case in found.damaged] == [
        ("b", "the split does not name it"),
        ("x", "the split names it, but there is no such image"),
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("x;train\n", "names none of the images, such as a. Check the split"),
        ("a;train\nb;validation\n", "line 2: 'validation' is no part of a split"),
        ("a;train\na;test\n", "line 2: a has two parts"),
        ("a;train\nb\n", "line 2: it has one column. Write slide;part"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, table: str, message: str) -> None:
    file = tmp_path / "split.csv"
    file.write_text(table, encoding="utf-8")

    with pytest.raises(PromptError, match=message):
        assign_parts([image("a"), image("b")], file)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="cannot be read as a table"):
        read_split(tmp_path / "absent.csv")


def test_patients_are_read_from_a_table(tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    file.write_text("a.svs;p1\nb.svs;p1\nc;p2\n", encoding="utf-8")

    assert read_groups(file) == {"a": "p1", "b": "p1", "c": "p2"}


NFC, NFD = (unicodedata.normalize(form, "Präparat") for form in FORMS)


@pytest.mark.parametrize(("ours", "theirs"), [(NFC, NFD), (NFD, NFC)])
def test_tables_and_rules_name_images_however_letters_are_composed(
    tmp_path: Path, ours: str, theirs: str
) -> None:
    file = tmp_path / "table.csv"
    file.write_text(f"{theirs}.svs;val\n", encoding="utf-8")

    found = assign_parts([image(ours)], file)
    groups = read_groups(file)
    (ruled,) = divide([image(ours)], SplitRule(test=(theirs,)))

    assert [(one.part, found.damaged) for one in found.images] == [("val", ())]
    assert groups == {image(ours).name: "val"}
    assert group_by_table({theirs: "7"})(ours) == "7"
    assert group_by_pattern("^(Prä)")(ours) == NFC[:3]
    assert ruled.part == "test"


@given(st.floats(0, 1), st.integers(0, 99))
def test_a_patient_falls_into_one_part_however_letters_are_composed(val: float, seed: int) -> None:
    rule = SplitRule(val_share=val, seed=seed)
    (ours,), (theirs,) = divide([image(NFC)], rule), divide([image(NFD)], rule)
    assert ours == theirs


def test_a_slide_of_two_patients_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    file.write_text("a;p1\na.svs;p2\n", encoding="utf-8")

    with pytest.raises(PromptError, match=r"line 2: a\.svs has two patients"):
        read_groups(file)
