"""The one rule for all files that outlive a run: each states the number of its format.

What an earlier version of this program wrote, with a lower number or none (which counts as 1), is
read. What a later version wrote is refused with a sentence and left as it is. Keys that are not
known are ignored, so a number is raised only where an older program would misread the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import FormatError


@dataclass(frozen=True)
class Format:
    """A kind of file, and the newest form of it that this version knows and writes.

    Attributes:
        what: name of such a file in messages.
        number: number of the newest form.
        key: key under which the file states its number.
    """

    what: str
    number: int
    key: str = "format"

    @property
    def stated(self) -> dict[str, object]:
        """The key and number that a new file states."""
        return {self.key: self.number}

    def check(self, place: object, content: Mapping[str, object]) -> int:
        """Return the number that a file states.

        Args:
            place: path of the file, for the message.

        Raises:
            FormatError: a newer version wrote it.
            ValueError: it states no number, but something else.
        """
        return self.check_number(place, content.get(self.key, 1))

    def check_number(self, place: object, number: object) -> int:
        """Return a stated number if this version can read that form; see :meth:`check`."""
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(number)
        if number > self.number:
            raise FormatError(
                f"{place} is {self.what} in format {number}, which a newer version of this program "
                f"wrote; this one knows formats up to {self.number}. Update wsisam-qupath. The "
                "file was left as it is."
            )
        return number


BACKUP = Format("a backup", 2)
CHECKPOINT = Format("the state of a training", 1)
COMMIT_MARKER = Format("the note of an unfinished change", 2)
CONNECTION = Format("the address of a server", 2)
EXPORT_MANIFEST = Format("the list of an export", 1, "schema_version")
HISTORY = Format("the history of results", 1, "history")
JOB = Format("a project job", 1)
JOURNAL = Format("a journal of results", 1, "journal")
LEARNING_CURVE = Format("a learning curve", 1)
LOCK_HOLDER = Format("the name of who holds the lock", 2)
PROGRAM_NOTE = Format("the note by which QuPath starts this program", 1)
RESULT = Format("a result", 2, "wsisam_format")
SCRIPT_RECORD = Format("the list of installed scripts", 2)
SLIDE_STATUS = Format("the status of a slide", 1)
SPLIT_TABLE = Format("the table of a split", 2)
TRAINING_SCHEDULE = Format("the schedule of a training", 1)
UNFINISHED_EVALUATION = Format("what an evaluation measured", 1, "unfinished_evaluation")
UNFINISHED_OUTLINES = Format("the outlines of a run that was stopped", 1, "unfinished_outlines")
UNFINISHED_PROJECT = Format("the record of an unfinished project", 1, "unfinished_project")
UNFINISHED_RESTORE = Format("the record of an unfinished restore", 1, "unfinished_restore")
VIEWED_OBJECTS = Format("the objects of a slide in the browser", 1, "wsisam_view")
