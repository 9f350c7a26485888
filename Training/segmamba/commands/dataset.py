"""`segmamba dataset init|check|summary|split`: from a folder of cases to a data set that can be trained on."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from segmamba.commands.shared import LABEL_CONVENTIONS, AddCommand, ready_for_output
from segmamba.errors import InputError

if TYPE_CHECKING:
    from segmamba.datasets.collect import Collected
    from segmamba.datasets.task import Task


def add(add_command: AddCommand) -> None:
    """Adds `dataset` to the command line."""
    command = add_command("dataset", run, "make, check, describe and split a data set")
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_init(actions)

    check = _action(actions, "check", _check, "read everything again and find what is wrong with it")
    check.add_argument("folder", help="folder of the data set")
    check.add_argument("--all", action="store_true", help="print every row, not only the first ten of each kind")
    check.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_jobs(check)

    summary = _action(actions, "summary", _summary, "cases, geometry, intensities and labels as a table")
    summary.add_argument("folder", help="folder of the data set")
    summary.add_argument("--json", action="store_true", help="print the result as JSON")

    split = _action(actions, "split", _split, "split by subject, once; later, add the new subjects")
    split.add_argument("folder", help="folder of the data set")
    parts = split.add_mutually_exclusive_group()
    parts.add_argument("--folds", type=int, help="number of folds for cross-validation (default: 5)")
    parts.add_argument(
        "--shares", metavar="70/10/20", help="instead of folds: percentages for training, validation and test"
    )
    split.add_argument("--seed", type=int, help="seed of the random split (default: 1)")


def _action(
    actions: argparse._SubParsersAction, name: str, do: Callable[[Namespace], int], help: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=help, description=help)
    action.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help="print details")
    action.set_defaults(do=do)
    return action


def _add_jobs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--jobs", type=int, default=min(os.cpu_count() or 1, 8), help="number of processes (default: %(default)s)"
    )


def _add_init(actions: argparse._SubParsersAction) -> None:
    init = _action(actions, "init", _init, "write the manifest of a folder or list of cases")
    init.add_argument(
        "source",
        metavar="FOLDER_OR_LIST",
        help="a folder of case folders, an MSD folder, or a .csv, .tsv or .json list",
    )
    init.add_argument("--output", "-o", metavar="FOLDER", help="folder for the manifest (default: FOLDER itself)")
    init.add_argument("--name", help="name of the data set (default: the name of the folder)")
    init.add_argument(
        "--labels",
        metavar="CONVENTION",
        help=f"convention of the brain-tumour labels: {', '.join(LABEL_CONVENTIONS)}; needed unless values and names "
        "are unambiguous",
    )
    init.add_argument("--task", metavar="FILE", help="TOML or JSON file of modalities, labels and regions")
    init.add_argument(
        "--modality", action="append", metavar="NAME", help="modality, instead of the four of BraTS; can be repeated"
    )
    init.add_argument(
        "--label", action="append", metavar="NAME=VALUE", help="label, instead of NCR, ED and ET; can be repeated"
    )
    init.add_argument(
        "--region",
        action="append",
        metavar="NAME=LABEL+LABEL",
        help="region made of labels (default: each label is a region); can be repeated",
    )
    init.add_argument(
        "--subject-pattern",
        metavar="REGEX",
        help="regular expression that finds the subject in a case id (its first group, or the whole match)",
    )
    init.add_argument("--update", action="store_true", help="include cases that were added, removed or corrected")
    init.add_argument("--skip-bad", action="store_true", help="exit with 0 even if cases were left out")
    _add_jobs(init)


def run(options: Namespace) -> int:
    """Runs `segmamba dataset`; returns the exit code."""
    return options.do(options)


def _init(options: Namespace) -> int:
    from segmamba.datasets.collect import init_dataset, update_dataset

    source = Path(options.source)
    ready_for_output(options.output or (source if source.is_dir() else source.absolute().parent))
    if options.update:
        given = [name for name in _MAKING if getattr(options, name)]
        if given:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(
                f"--update keeps the settings of the data set; leave out {names}, or make another data set"
            )
        source = options.output or options.source
        with _Bar("reading") as bar:
            result = update_dataset(source, jobs=options.jobs, progress=bar)
    else:
        with _Bar("reading") as bar:
            result = init_dataset(
                options.source,
                output=options.output,
                name=options.name,
                task=_task(options),
                convention=options.labels,
                subject_pattern=options.subject_pattern,
                jobs=options.jobs,
                progress=bar,
            )
    return _report(result, options.skip_bad)


_MAKING = ("name", "labels", "task", "modality", "label", "region", "subject_pattern")


def _report(result: Collected, skip_bad: bool) -> int:
    for note in result.notes[:20]:
        print(f"note: {note}")
    if len(result.notes) > 20:
        print(f"note: and {len(result.notes) - 20} more; `segmamba dataset check` shows them")
    for case_id, reason in result.left_out.items():
        print(f"left out: {case_id}: {reason}", file=sys.stderr)
    dataset = result.dataset
    subjects = len({case.subject for case in dataset.cases})
    print(
        f"{len(dataset.cases)} cases of {subjects} subjects, {len(result.read)} read, {len(result.left_out)} left out"
        + (f", {len(result.gone)} gone ({', '.join(result.gone[:5])})" if result.gone else "")
    )
    if "convention" in dataset.made:
        print(f"labels: {dataset.made['convention']}")
    print(Path(dataset.folder) / "dataset.json")
    if result.left_out and not skip_bad:
        print(
            "error: cases were left out; fix them and run again with --update, or accept it with --skip-bad",
            file=sys.stderr,
        )
        return 1
    return 0


def _check(options: Namespace) -> int:
    from segmamba.datasets.check import check_dataset
    from segmamba.datasets.manifest import read_dataset
    from segmamba.datasets.tables import format_findings

    dataset = read_dataset(options.folder)
    with _Bar("checking") as bar:
        findings = check_dataset(dataset, options.jobs, bar)
    errors = sum(f.severity == "error" for f in findings)
    if options.json:
        print(json.dumps([f.as_json() for f in findings], indent=2))
    else:
        if findings:
            print(format_findings(findings, options.all), end="\n\n")
        print(f"{len(dataset.cases)} cases: {errors} errors, {len(findings) - errors} warnings")
    return 1 if errors else 0


def _summary(options: Namespace) -> int:
    from segmamba.datasets.manifest import read_dataset
    from segmamba.datasets.tables import format_summary, summarise

    dataset = read_dataset(options.folder)
    print(json.dumps(summarise(dataset), indent=2) if options.json else format_summary(dataset))
    return 0


def _split(options: Namespace) -> int:
    from segmamba.datasets.manifest import read_dataset
    from segmamba.datasets.split import SPLIT, make_split

    dataset = read_dataset(options.folder)
    shares = _shares(options.shares) if options.shares is not None else None
    split, added = make_split(dataset, folds=options.folds, shares=shares, seed=options.seed)
    print(f"{split.describe()}: {len(split.subjects)} subjects, {added} of them new")
    parts = {part: [c for c in dataset.cases if split.subjects[c.subject] == part] for part in split.parts}
    for part, inside in parts.items():
        print(f"{part!s:>10}  {len({c.subject for c in inside})} subjects, {len(inside)} cases")
    for part, inside in parts.items():
        wanted = split.shares is None or split.shares[str(part)] > 0
        if wanted and not any(case.label for case in inside):
            print(f"note: no labelled case is in {part if split.shares else f'fold {part}'}")
    print(Path(dataset.folder) / SPLIT)
    return 0


def _task(options: Namespace) -> Task | None:
    from segmamba.datasets.task import Task, custom_task, read_task

    if options.task:
        if options.modality or options.label or options.region:
            raise InputError(
                "--task defines modalities, labels and regions; leave out --modality, --label and --region"
            )
        return read_task(Path(options.task))
    if options.label:
        modalities = options.modality or Task().modalities
        labels = {name: [_whole(value, name)] for name, value in _pairs(options.label, "--label")}
        regions = {name: value.split("+") for name, value in _pairs(options.region or [], "--region")}
        return custom_task(modalities, labels, regions)
    if options.region:
        raise InputError("--region needs the labels it is made of: --label NAME=VALUE")
    return Task(modalities=tuple(options.modality)) if options.modality else None


def _pairs(entries: list[str], option: str) -> list[tuple[str, str]]:
    pairs = [entry.partition("=") for entry in entries]
    for entry, (name, _, value) in zip(entries, pairs):
        if not name or not value:
            raise InputError(
                f"{option} {entry}: expected {'NAME=VALUE' if option == '--label' else 'NAME=LABEL+LABEL'}"
            )
    return [(name, value) for name, _, value in pairs]


def _whole(value: str, name: str) -> int:
    if not value.isdecimal():
        raise InputError(f"--label {name}={value}: expected a whole number, the label's value in the files")
    return int(value)


def _shares(text: str) -> dict[str, float]:
    from segmamba.datasets.split import PARTS

    try:
        numbers = [float(part) for part in text.split("/")]
        if not math.isfinite(sum(numbers)):
            raise ValueError
        return {part: number / sum(numbers) for part, number in zip(PARTS, numbers, strict=True)}
    except (ValueError, ZeroDivisionError):
        raise InputError(f"--shares {text}: expected three numbers, e.g. 70/10/20") from None


class _Bar:
    """Progress over cases on a terminal; nothing elsewhere."""

    def __init__(self, what: str):
        self._what, self._bar = what, None

    def __enter__(self) -> _Bar:
        return self

    def __call__(self, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=self._what, unit="case", leave=False)
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
