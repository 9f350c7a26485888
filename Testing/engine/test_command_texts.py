"""What is written of the command line, in texts and in the code, against the command line."""

import argparse
import re
from pathlib import Path

import pytest
from segmamba.cli import _parser

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [*ROOT.glob("*.md"), *(ROOT / "Resources").rglob("*.md"), *(ROOT / "Training").rglob("*.md")]
CODE = [*(ROOT / "Training" / "segmamba").rglob("*.py"), *(ROOT / "SegMambaSlicer").rglob("*.py")]
MENTION = re.compile(r"(?:^|[`/])segmamba ([a-z][a-z0-9|-]*)([^`#\n]*)", re.MULTILINE)
OPTION = re.compile(r"(?<!\S)--?[a-z][a-z0-9-]*")


def parsers(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], set[str]]:
    """Words of a command, as ("dataset", "init") -> its options."""
    found = {words: set(parser._option_string_actions)}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                found |= parsers(below, (*words, name))
    return found


COMMANDS = parsers(_parser())


def mistakes(text: str) -> list[str]:
    """Commands and options that a text names and that are none."""
    found = []
    for mention in MENTION.finditer(text.replace("\\\n", " ")):
        for name in mention[1].split("|"):
            words = (name, *mention[2].split()[:1])
            known = COMMANDS.get(words) or COMMANDS.get((name,))
            if known is None:
                found.append(f"segmamba {name}")
            else:
                found += [f"{name} {option}" for option in OPTION.findall(mention[2]) if option not in known]
    return found


@pytest.mark.parametrize(
    "path", [p for p in [*TEXTS, *CODE] if MENTION.search(p.read_text("utf-8"))], ids=lambda p: p.name
)
def test_commands_and_options_that_are_named_exist(path):
    assert mistakes(path.read_text("utf-8")) == []


def test_a_mistake_would_be_found():
    assert mistakes("`segmamba import-model x`, `segmamba predict CASE --otput x`") == [
        "segmamba import-model",
        "predict --otput",
    ]


def test_every_output_has_a_short_option():
    """Of most commands it had: whoever learnt `-o` there types it everywhere."""
    assert [words for words, options in COMMANDS.items() if "--output" in options and "-o" not in options] == []


def test_the_slurm_script_hands_its_cores_to_srun():
    """Since Slurm 22.05 srun does not take --cpus-per-task from sbatch: a training would have one core."""
    lines = (ROOT / "Training" / "slurm" / "train.sbatch").read_text("utf-8").splitlines()
    (srun,) = [number for number, line in enumerate(lines) if line.startswith("srun ")]
    assert any(line.startswith("#SBATCH --cpus-per-task=") for line in lines)
    assert 'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"' in [line.partition(" #")[0] for line in lines[:srun]]
