"""Table 1 of the paper on one's own data: every network trained with the same configuration, and what each costs.

DIR/NETWORK/       the run folder of each network, as `segmamba train` writes it; a finished one is collected, one that
                   was stopped goes on. Several GPUs: `torchrun ... train.py CONFIG --set network.name=NETWORK
                   --run-folder DIR/NETWORK` first, for each network
DIR/table1.md      the table
DIR/table1.json    the same with everything that it was made from

Xing et al., arXiv 2401.13560, table 1 (accuracy) and table 5 (costs).
"""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, write_aside
from segmamba.models.package import MANIFEST, read_manifest
from segmamba.networks.baselines import BASELINES
from segmamba.networks.baselines.config import check_packages
from segmamba.networks.choice import NetworkChoice
from segmamba.networks.presets import PRESETS
from segmamba.settings import build, read_json
from segmamba.training.config import TrainingConfig, resolved, without_empty
from segmamba.training.costs import Costs, device_name, measure_costs
from segmamba.training.data_check import check_data
from segmamba.training.final_score import MIRRORINGS, find_test_cases, score_on_test
from segmamba.training.loop import train
from segmamba.training.optimize import check_patch
from segmamba.training.run_folder import CONFIG, FREE, surroundings

log = logging.getLogger(__name__)

NETWORKS = ("released", *BASELINES)
_COSTS = "costs.json"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network of the table."""

    network: str
    """Name or preset."""
    costs: Costs | None
    """Of a step and of a case; None: see `unmeasured`."""
    mean: dict[str, dict[str, float]] = field(default_factory=dict)
    """{region: {"dice", "hd95"}} over the held-out cases."""
    cases: int = 0
    """Held-out cases of `mean`."""
    failure: str = ""
    """Why there are no scores; "" where there are."""
    unmeasured: str = ""
    """Why there are no costs; "" where there are."""


def parse_networks(text: str) -> tuple[NetworkChoice, ...]:
    """The networks of a list such as `a,b`: presets of SegMamba and baselines.

    Raises InputError for what is neither, or named twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [*PRESETS, *BASELINES]
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"unknown networks {', '.join(unknown)}; known are {', '.join(known)}")
    if not names or len(set(names)) < len(names):
        raise InputError(f"networks {text!r} must be one or more names, each once; known are {', '.join(known)}")
    return tuple(NetworkChoice(preset=name) if name in PRESETS else NetworkChoice(name=name) for name in names)


def make_table(
    config: TrainingConfig, networks: Sequence[NetworkChoice], folder: Path, device: str, test: bool = False
) -> list[Row]:
    """Trains or collects each network, and writes the table after every row.

    Args:
        config: of all of them but for the network.
        networks: a row each.
        folder: of the table, with a run folder for each network in it.
        device: as torch names it.
        test: the scores are those of the cases that the data sets keep for a test, with mirrorings
            (training.final_score), as the paper has them; else of the validation cases.

    Returns:
        The rows, in the order of `networks`.

    Raises:
        InputError: before anything is trained, where a network does not take the patch or needs a package that is
            missing, a run folder holds a training with another configuration or on other data, or this is one of
            several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "table1 runs in one process: train each network with torchrun and `train --run-folder DIR/NETWORK`, "
            "then collect them with `table1 --output DIR`"
        )
    check_patch(config, device)
    if test:
        find_test_cases(config)
    configs = {_label(choice): _configured(config, choice) for choice in networks}
    for one in configs.values():
        _check_run(one, folder)
        check_packages(one.network.name)
        one.network.resolve(len(one.preprocess.modalities), 2, cast(tuple[int, int, int], tuple(one.patch)))
    rows: list[Row] = []
    for name, one in configs.items():
        log.info("%s", name)
        rows.append(_row(name, one, folder / name, device, test))
        values = {
            "config": resolved(config),
            **surroundings(device),
            "test": test,
            "rows": [asdict(row) for row in rows],
        }
        write_aside(folder / "table1.json", (json.dumps(values, indent=2) + "\n").encode())
        write_aside(folder / "table1.md", format_markdown(rows, test).encode())
    return rows


def _label(choice: NetworkChoice) -> str:
    return choice.preset if choice.name == "segmamba" else choice.name


def _configured(config: TrainingConfig, choice: NetworkChoice) -> TrainingConfig:
    """The configuration with another network and, which no weight depends on, another name."""
    return replace(config, name=f"{config.name}-{_label(choice)}", network=choice)


def _check_run(config: TrainingConfig, folder: Path) -> None:
    """Refuses a run folder of another configuration or other data, so that all rows were made with the same."""
    path = folder / _label(config.network) / CONFIG
    if not path.exists():
        return
    try:
        theirs = without_empty(read_json(path)["config"])
        theirs_network, ours = theirs["network"], json.loads(json.dumps(resolved(config)))
    except (ValueError, KeyError, TypeError, AttributeError):  # InputError is a ValueError
        raise InputError(f"{path} cannot be read; take the folder away, or give another --output") from None
    if config.network.name != "segmamba" and theirs_network.get("name") == config.network.name:
        theirs["network"] = {**theirs_network, "preset": ours["network"]["preset"]}  # which says nothing of a baseline
    if differing := [key for key in sorted({*ours, *theirs}) if key not in FREE and theirs.get(key) != ours.get(key)]:
        raise InputError(
            f"{path} is of a training with other settings ({', '.join(differing)}): "
            "give the configuration it was made with, or another --output"
        )
    check_data(config, path.parent, "--output")


def _row(name: str, config: TrainingConfig, run: Path, device: str, test: bool) -> Row:
    metrics, failure, costs, unmeasured = {}, "", None, ""
    try:
        model = run / "model"
        if not (model / MANIFEST).is_file():
            model = train(config, run, resume="auto", device=device)
        metrics = score_on_test(model, config, run, device) if test else read_manifest(model).metrics
    except InputError as error:  # the other networks have their rows all the same
        log.error("%s: %s", name, error)
        failure = str(error)
    try:
        costs = _costs(config, run, device)
    except InputError as error:
        log.error("%s: %s", name, error)
        unmeasured = str(error)
    return Row(
        network=name,
        costs=costs,
        mean=metrics.get("mean", {}),
        cases=len(metrics.get("cases", {})),
        failure=failure,
        unmeasured=unmeasured,
    )


def _costs(config: TrainingConfig, run: Path, device: str) -> Costs:
    """Measured, or as measured before on such a device."""
    path = run / _COSTS
    if path.exists():
        costs = build(Costs, read_json(path), str(path))
        if costs.device == device_name(device):
            return costs
    costs = measure_costs(config, device)
    make_folder(run)
    write_aside(path, (json.dumps(asdict(costs), indent=2) + "\n").encode())
    return costs


# --- the table


def format_markdown(rows: Sequence[Row], test: bool = False) -> str:
    """Dice in percent, HD95 in mm; the mean over regions last, as the paper has it."""
    regions = next((list(row.mean) for row in rows if row.mean), [])
    header = ["network", "parameters, M", "FLOPs, G", "step, s", "step, MB", "case, s", "case, MB"]
    header += [f"Dice {region}" for region in [*regions, "mean"]] + [f"HD95 {region}" for region in [*regions, "mean"]]
    lines = [_line([*header, "cases"]), _line(["---"] + ["---:"] * len(header))]
    for row in rows:
        cells = [row.network, *_cost_cells(row.costs)]
        for metric, scale in (("dice", 100.0), ("hd95", 1.0)):
            values = [scale * row.mean[region][metric] for region in regions if region in row.mean]
            mean = statistics.fmean(values) if values else None
            cells += [_number(value, 2) for value in (values or [None] * len(regions))] + [_number(mean, 2)]
        lines.append(_line([*cells, str(row.cases)]))
    devices = ", ".join(sorted({row.costs.device for row in rows if row.costs})) or "-"
    lines += ["", f"Device: {devices}. FLOPs: forward pass of one patch."]
    lines += [f"Scores: test cases, {MIRRORINGS} mirrorings." if test else "Scores: validation cases, no mirroring."]
    lines += [f"{row.network} has no model: {row.failure}" for row in rows if row.failure]
    lines += [f"{row.network} has no costs: {row.unmeasured}" for row in rows if row.unmeasured]
    return "\n".join(lines) + "\n"


def _cost_cells(costs: Costs | None) -> list[str]:
    if costs is None:
        return ["-"] * 6
    return [
        f"{costs.parameters / 1e6:.2f}",
        f"{costs.flops / 1e9:.1f}",
        _number(costs.step_seconds, 3),
        _number(costs.step_mb, 0),
        _number(costs.case_seconds, 2),
        _number(costs.case_mb, 0),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
