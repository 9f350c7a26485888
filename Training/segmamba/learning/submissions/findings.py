"""What can be found about a submission, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

# what cannot be accepted: kind -> what to do
WRONG = {
    "record": "send the case again",
    "consent": "ask, and send the case again with the answer",
    "identifying": "send it with the panel or `segmamba correct`, which write images anew from their voxels",
    "changed": "files of a submission are never edited: send the case again",
    "file": "fix the file, and send the case again",
    "label values": "correct the label map, and send the case again",
    "other task": "a folder holds one task: send it to a folder of its own",
    "other patient": "the label map belongs to another case: send the right one",
    "same image": "one examination under two patients: find out whose it is",
    "other subject": "send it again with the patient's number of the first time, or without one if there was none",
}
# what may be right after all, if a person says so: kind -> what to look at
DOUBTFUL = {
    "modalities": "look at the images: are two exchanged?",
    "labels": "look at the labels: are two exchanged?",
    "mirrored": "look at the label map over t2f: is it mirrored?",
    "elsewhere": "look at the label map over t2f: is it of this case, and in its place?",
    "registration": "look at the images over one another: does one lie elsewhere?",
    "outside head": "erase what is labelled outside the head",
    "empty label": "confirm that there is nothing to label",
    "same label": "look whether one label map was copied over another",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that intake found in a submission."""

    kind: str
    """Of WRONG, DOUBTFUL, or a note (slight, specks, note, prepared, unchanged, no proposal, repeated image)."""
    text: str
    """What was found, in plain words."""

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return {**WRONG, **DOUBTFUL}.get(self.kind, "")

    @property
    def severity(self) -> str:
        """One of "wrong" (never accepted), "doubtful" (accepted where a person gives a reason), "note"."""
        return "wrong" if self.kind in WRONG else "doubtful" if self.kind in DOUBTFUL else "note"
