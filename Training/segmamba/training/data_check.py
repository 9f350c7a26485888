"""Whether a run folder is of the data that a configuration names, as they are now."""

from __future__ import annotations

from pathlib import Path

from segmamba.errors import InputError
from segmamba.training.config import TrainingConfig
from segmamba.training.patches import name_block
from segmamba.training.plan import arrange_patches, make_plan
from segmamba.training.run_folder import changed_settings, read_record
from segmamba.training.samples import case_digest


def check_data(config: TrainingConfig, run: Path, option: str) -> None:
    """Refuses a run folder of other cases, or of the same with other images or labels.

    Args:
        config: of the training.
        run: its folder, with a record of what it worked on.
        option: of the command line, which names another folder.

    Raises:
        InputError: where the record names other cases, and as `plan.make_plan`.
    """
    now, record = planned_data(config), read_record(run)
    known = [part for part in now if part in record]
    changed = changed_settings(*({part: of[part] for part in known} for of in (record, now)))
    if changed:
        said = "; ".join(f"{part}: {text}" for part, text in changed.items())
        raise InputError(
            f"{run} is of a training on other data ({said}): take the folder away, so that it is trained anew, "
            f"or name another {option}"
        )


def planned_data(config: TrainingConfig) -> dict[str, dict[str, str]]:
    """What `experiment.Experiment.data_record` will say of a training; no image is read. Raises InputError."""
    plan, spec = make_plan(config), config.preprocess
    found = []
    for number, (dataset, training, validation) in plan.datasets.items():
        for part, entries in (("cases", training), ("held_out", validation)):
            found += [(number, part, entry.id, case_digest(dataset, entry, spec)) for entry in entries]
    for number, packed in plan.packed.items():
        cases = packed.cases[: config.sources[number].at_most]
        found += [(number, "cases", case.id, case.digest) for case in cases]
    for number, blocks in arrange_patches(plan, config).items():
        names = [name_block(plan.patches[number], block, spec, len(plan.scheme.labels)) for block in blocks]
        found += [(number, "cases", *name) for name in names]
    found.sort()  # of two cases of one id the record has the last one
    return {part: {name: digest for _, p, name, digest in found if p == part} for part in ("cases", "held_out")}
