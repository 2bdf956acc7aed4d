"""Whether a new adapter is better, from all answers of both."""

from __future__ import annotations

import io

from rich.console import Console

from wsisam_qupath.prompts import PromptKind
from wsisam_qupath_training.evaluate.outline_fit import Fit
from wsisam_qupath_training.evaluate.protocol import ObjectKey
from wsisam_qupath_training.evaluate.results import EvaluationResults, Score
from wsisam_qupath_training.run.verdict import judge, tell

LABELS = ("box", "1 point", "3 points", "5 points", "10 points", "box + 3 points", "outline")


def answers(patient: str, before: float, after: float) -> EvaluationResults:
    """Two objects of a patient, asked in all ways, with these Dice before and after."""
    found = EvaluationResults()
    for number in range(2):
        key = ObjectKey("set", f"{patient}.tif", patient, str(number), "gland")
        for model, dice in (("before", before), ("after", after)):
            fit = Fit(dice, dice, dice)
            found.scores += [Score(key, model, label, fit, None, None) for label in LABELS]
    return found


def test_the_objects_of_all_folds_are_judged_together() -> None:
    folds = [answers("p1", 0.5, 0.7), answers("p2", 0.5, 0.6), answers("p3", 0.4, 0.8)]

    judgments = judge(folds, "before", "after")

    assert {one.kind for one in judgments} == set(PromptKind) - {PromptKind.OUTLINE_POINTS}
    for one in judgments:
        assert one.says == "better"
        assert one.gain.objects == 6
        assert one.gain.groups == 3
        assert abs(one.before - 1.4 / 3) < 1e-9
        assert abs(one.after - 2.1 / 3) < 1e-9


def test_a_fold_that_became_worse_leaves_the_others_no_better() -> None:
    folds = [answers("p1", 0.5, 0.7), answers("p2", 0.7, 0.3)]

    assert {one.says for one in judge(folds, "before", "after")} == {"equal"}


def test_it_is_said_that_a_verdict_is_cross_validated() -> None:
    console = Console(file=io.StringIO(), width=200)
    judgments = judge([answers("p1", 0.5, 0.7), answers("p2", 0.5, 0.7)], "before", "after")

    tell(judgments, "old", console, folds=2)

    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().startswith(
        "Compared with old on 4 objects (cross-validated: 2 trainings, each asked about images it "
        "was not trained on):"
    )
