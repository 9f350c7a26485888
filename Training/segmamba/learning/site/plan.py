"""improve.json, the plan of an improvement: what was asked, the model it began with, and what is done."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from segmamba import settings
from segmamba.errors import InputError
from segmamba.files.atomic import write_aside
from segmamba.learning.site.layout import PLAN, WAYS

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is to do, and what of it is done."""

    schema: int = SCHEMA
    """Of the file; another one is refused."""
    way: str
    """"finetune" or "retrain"."""
    steps: int | None = None
    """As asked, None: as the recipe says."""
    initial: str | None = None
    """Name of the model in use when the run began."""
    trained: str | None = None
    """Hash of the manifest of RUN/model once it is whole."""
    chosen: str | None = None
    """Likewise of RUN/candidate."""
    candidate: str | None = None
    """Its name in the registry."""


def begin_plan(folder: Path, way: str | None, steps: int | None) -> Plan:
    """The plan of a run that was begun, or a new one, on the disk.

    Args:
        folder: of the run.
        way: "finetune" or "retrain"; None: as it was begun, or the first of these.
        steps: of training; None: as it was begun, or as the recipe says.

    Returns:
        The plan.

    Raises:
        InputError: where the run was begun otherwise, or its plan cannot be read.
    """
    path = folder / PLAN
    try:
        values = settings.read_json(path, optional=True)
        plan = None if values is None else settings.build(Plan, values, str(path))
    except InputError as error:
        raise InputError(f"{error}; begin another run") from None
    if plan is None:
        plan = Plan(way=way or WAYS[0], steps=steps)
        write_plan(folder, plan)
    if plan.schema != SCHEMA:
        raise InputError(f"{path} has schema {plan.schema}; this version reads {SCHEMA}: begin another run")
    if way not in (None, plan.way) or steps not in (None, plan.steps):
        raise InputError(
            f"run {folder.name} was begun as {plan.way} with {plan.steps or 'the usual'} steps; "
            "leave --way and --steps out, or begin another run"
        )
    return plan


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes the plan of a run, aside first."""
    write_aside(folder / PLAN, (json.dumps(asdict(plan), indent=1) + "\n").encode())
