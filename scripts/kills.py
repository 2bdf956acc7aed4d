"""Kill batches at random moments, and see that nothing is lost and every end is the same.

    python scripts/kills.py [--kills 200] [--minutes 60] [--seed 0]

Makes a project of three small slides, lets one copy of it run undisturbed, and kills runs over
further copies with ``kill -9`` until so many died, or the time is over. A copy is run again after
each kill until it ends by itself; QuPath then has to see in it what it sees in the undisturbed one,
and after `restore --to original` what it saw before the first run. Needs QuPath. The exit code is 1
where something was lost.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fixtures.batch_projects import copy_of, leftovers, seen_by
from fixtures.command_line import GLAND, LARGE_GLAND, identity, rectangle, run
from fixtures.models import tissue_rgb
from fixtures.running_batches import RunningBatch
from wsisam_qupath.qupath.jvm.creation import NewImage, add_images
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.slide.pyramid import write_pyramid


def make_project(qupath: QuPathProcess, folder: Path) -> Path:
    """Three slides with three rectangles each."""
    project = folder / "project" / "project.qpproj"
    project.parent.mkdir()
    tissue = tissue_rgb()
    images = []
    for number, picture in enumerate((tissue, tissue[:, ::-1], tissue[::-1]), start=1):
        slide = folder / f"{number}.tif"
        write_pyramid(slide, np.ascontiguousarray(picture), mpp=0.5)
        boxes = (LARGE_GLAND, (20, 20, 240, 230), GLAND)
        features = (
            rectangle(identity(10 * number + index), box) for index, box in enumerate(boxes)
        )
        images.append(NewImage(slide, features=tuple(features)))
    qupath.run(add_images, project, images, "brightfield-h-e")
    return project


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random = Random(given.seed)
    end = time.monotonic() + 60 * given.minutes
    killed = ended = lost = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as name, QuPathProcess() as qupath:
        folder = Path(name)
        created = make_project(qupath, folder)
        original = seen_by(qupath, created)
        undisturbed = copy_of(created, folder / "undisturbed")
        began = time.monotonic()
        with RunningBatch(undisturbed, "--adapter", "none") as batch:
            answer = batch.ended()
        if answer.code:
            sys.exit(answer.err)
        usual_seconds = time.monotonic() - began
        print(f"An undisturbed run takes {usual_seconds:.0f} s.", flush=True)
        expected = seen_by(qupath, undisturbed)
        while killed < given.kills and time.monotonic() < end:
            project = copy_of(created, folder / f"copy-{ended}")
            while killed < given.kills and time.monotonic() < end:
                with RunningBatch(project, "--adapter", "none") as batch:
                    # Most of a run is its start: more kills than chance would have come late.
                    time.sleep(usual_seconds * (1 - random.random() ** 2) * 1.1)
                    batch.kill()
                    killed += (code := batch.ended().code) < 0
                if code >= 0:
                    break
            answer = run("batch", project, "--adapter", "none")
            ended += 1
            is_same = seen_by(qupath, project) == expected
            back = run("restore", project, "--to", "original")
            is_same &= seen_by(qupath, project) == original and not leftovers(project)
            if answer.code or back.code or not is_same:
                lost += 1
                print(
                    f"copy {ended} ended with {answer.code} and {back.code} and is not the same: "
                    f"{answer.err}{back.err}",
                    flush=True,
                )
            print(f"{killed} kills, {ended} copies, {lost} lost", flush=True)
    print(
        f"{killed} kills; {ended} copies ended as an undisturbed run does and could be taken back "
        f"to their first state, but for {lost}"
    )
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
