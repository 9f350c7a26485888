"""Where things lie in the folder of a site. SITE.md beside this file says it to people and to other programs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, share

# of a run folder, beside what segmamba.training.loop writes there
STATUS = "status.json"
PLAN = "improve.json"
OUTPUT = "output.txt"
DATA = "corrections"
CANDIDATE = "candidate"
LOG = "log.jsonl"  # of segmamba.training.run_folder, which needs torch
LOCK = ".lock"
MOMENT = 1.0  # seconds for which somebody who only looks may hold a lock
WAYS = ("finetune", "retrain")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_TRIES = 1000


@dataclass(frozen=True)
class Site:
    """The folder of a site, with what lies where in it."""

    folder: Path
    """Of the site; made where it is needed."""

    @property
    def corrections(self) -> Path:
        """The folder of submissions, and of the data set made of them."""
        return self.folder / "corrections"

    @property
    def models(self) -> Path:
        """The folder of models with its registry."""
        return self.folder / "models"

    @property
    def runs(self) -> Path:
        """The folder of improvement runs."""
        return self.folder / "runs"

    @property
    def replay(self) -> Path:
        """Data sets that are learnt again beside the corrected cases."""
        return self.folder / "replay"

    @property
    def anchor(self) -> Path:
        """The data set that no model here learns from."""
        return self.folder / "anchor"

    @property
    def cache(self) -> Path:
        """Where preprocessed cases are kept."""
        return self.folder / "cache"

    @property
    def lock(self) -> Path:
        """Held by the run that is at work; a run folder's own `.lock` is held by whoever works there."""
        return self.runs / LOCK

    def run(self, name: str) -> Path:
        """The folder of a run, there or not. Raises InputError for what is no plain name."""
        if not _NAME.fullmatch(name):
            raise InputError(f"run {name!r}: expected a plain name of letters, digits, '.', '_' and '-'")
        return self.runs / name

    def old_run(self, name: str) -> Path:
        """The folder of a run that was begun. Raises InputError where there is none."""
        place = self.run(name)
        if not place.is_dir():
            known = ", ".join(path.name for path in self.run_folders()) or "none"
            raise InputError(f"{self.folder} has no run {name}; it has {known}")
        return place

    def new_run(self, way: str) -> Path:
        """A run folder that nobody else has: finetune-0001 and so on."""
        make_folder(self.runs)
        names = [re.fullmatch(rf"{way}-(\d+)", path.name) for path in self.runs.iterdir()]
        last = max([0, *(int(match[1]) for match in names if match)])
        for number in range(last + 1, last + 1 + _TRIES):
            place = self.runs / f"{way}-{number:04d}"
            try:
                place.mkdir()
                share(place)
            except FileExistsError:  # somebody else was quicker
                continue
            return place
        raise InputError(f"{self.runs} cannot take another run; move old ones away")

    def run_folders(self) -> list[Path]:
        """Folders of runs that were begun, in no order."""
        if not self.runs.is_dir():
            return []
        return [path for path in self.runs.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]


def check_site(site: Site) -> None:
    """Raises InputError where the folder of a site is not there, of which its name may be misspelt."""
    if not site.folder.is_dir():
        raise InputError(f"{site.folder} is not a folder; choose the folder of the site")
