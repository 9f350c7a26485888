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
    """way: "finetune" or "retrain". steps: as asked, None: as the recipe says. initial: name of the model in use when
    the run began. trained: hash of the manifest of RUN/model once it is whole; chosen: likewise of RUN/candidate.
    candidate: its name in the registry."""

    schema: int = SCHEMA
    way: str
    steps: int | None = None
    initial: str | None = None
    trained: str | None = None
    chosen: str | None = None
    candidate: str | None = None


def begin_plan(folder: Path, way: str | None, steps: int | None) -> Plan:
    """The plan of a run that was begun, or a new one, on the disk. Raises InputError where the two do not agree."""
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
    write_aside(folder / PLAN, (json.dumps(asdict(plan), indent=1) + "\n").encode())
