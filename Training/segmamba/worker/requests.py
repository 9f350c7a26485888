"""Requests: one line of JSON to one checked request. Versions, keys and kinds are written down in PROTOCOL.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from segmamba.settings import parse_json, shown

VERSION = 1
MIRRORINGS = (0, 1, 3, 7)
AUTO_OR_NEVER = ("auto", "never")
LONGEST_LINE = 1 << 20


class ProtocolError(Exception):
    """A line that is no request. `id` is the request's, where it could be read."""

    def __init__(self, message: str, id: str | None = None):
        super().__init__(message)
        self.id = id


@dataclass(frozen=True)
class Request:
    """What every request has; `hello` and `shutdown` have no more."""

    id: str
    """Chosen by whoever asks; every answer has it."""
    command: str
    """"hello", "segment", "cancel" or "shutdown"."""


@dataclass(frozen=True)
class Segment(Request):
    """Asks for the segmentation of one case."""

    images: dict[str, Path] = field(default_factory=dict)
    """Modality -> file."""
    output: Path = Path()
    """A folder that exists."""
    model: str = "quick"
    """A name or a folder."""
    mirrorings: int = 0
    """0, 1, 3 or 7 extra passes with flipped axes."""
    device: str = "auto"
    """"auto", "cpu", "cuda", "cuda:0", "mps"."""
    probabilities: bool = False
    """Write the probability of each label as well."""
    postprocess: str = "auto"
    """"auto" leaves out what the model's manifest calls too small."""
    left_out: bool = False
    """That too, as a label map of its own."""
    prepare: str = "auto"
    """"auto" registers images and cuts the brain out where they need it, "never" takes them as they are."""
    brain_mask: Path | None = None
    """a file, or None."""

    @property
    def paths(self) -> list[Path]:
        """All that name a file or folder; `model` where it is more than a name."""
        model = Path(self.model)
        given = [*self.images.values(), self.output, *([self.brain_mask] if self.brain_mask else [])]
        return given if model.name == self.model else [*given, model]


@dataclass(frozen=True)
class Cancel(Request):
    """Asks for the end of a request, `target`."""

    target: str = ""
    """Id of that request."""


# command -> (keys that it must have, keys that it may have)
_KEYS = {
    "hello": ({"protocol"}, set()),
    "segment": (
        {"images", "output"},
        {"model", "mirrorings", "device", "probabilities", "postprocess", "left_out", "prepare", "brain_mask"},
    ),
    "cancel": ({"target"}, set()),
    "shutdown": (set(), set()),
}


def parse(line: bytes) -> Request:
    """The request in a line. Raises ProtocolError, which says what is wrong with it."""
    if len(line) > LONGEST_LINE:
        raise ProtocolError(f"a line of {len(line)} bytes; a request has at most {LONGEST_LINE}")
    try:
        values = parse_json(line.decode("utf-8"), "a line")
    except ValueError as error:  # InputError and UnicodeDecodeError are such
        raise ProtocolError(f"a line is no JSON in UTF-8 ({error}); expected one object a line") from None
    if not isinstance(values, dict):
        raise ProtocolError(f"a line holds a JSON {type(values).__name__}; expected an object with id and command")
    id = values.pop("id", None)
    if not isinstance(id, str) or not 1 <= len(id) <= 200:
        raise ProtocolError(f"id {str(id)[:50]!r} of a request: expected a text of 1 to 200 characters")
    command = values.pop("command", None)
    if not isinstance(command, str) or command not in _KEYS:
        raise ProtocolError(f"unknown command {str(command)[:50]!r}; expected one of {', '.join(_KEYS)}", id)
    _check_keys(values, command, id)
    if command == "hello" and values["protocol"] != VERSION:
        raise ProtocolError(
            f"protocol {shown(values['protocol'])} is asked for, this worker speaks {VERSION}; update the older side",
            id,
        )
    if command == "cancel":
        return Cancel(id, command, _text(values, "target", id))
    return _segment(values, id) if command == "segment" else Request(id, command)


def _check_keys(values: dict, command: str, id: str) -> None:
    needed, optional = _KEYS[command]
    if missing := sorted(needed - set(values)):
        raise ProtocolError(f"{command}: missing {', '.join(missing)}", id)
    for name in sorted(set(values) - needed - optional):
        near = get_close_matches(name, needed | optional, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ProtocolError(f"{command} has no key {name[:50]!r}{hint}", id)


def _segment(values: dict, id: str) -> Segment:
    images = values["images"]
    if not isinstance(images, dict) or not images:
        raise ProtocolError("images: expected an object, modality -> path", id)
    images = {modality: Path(_text(images, modality, id)) for modality in images}
    output = Path(_text(values, "output", id))
    mask = Path(_text(values, "brain_mask", id)) if values.get("brain_mask") is not None else None
    for path in (*images.values(), output, *([mask] if mask else [])):
        if not path.is_absolute():
            raise ProtocolError(
                f"{str(path)[:200]} is no absolute path; the worker knows no other folder than its own", id
            )
    mirrorings = values.get("mirrorings", 0)
    if isinstance(mirrorings, bool) or mirrorings not in MIRRORINGS:
        raise ProtocolError(f"mirrorings {shown(mirrorings)}: expected one of {', '.join(map(str, MIRRORINGS))}", id)
    wanted: dict[str, Any] = {name: values.get(name, False) for name in ("probabilities", "left_out")}
    for name, value in wanted.items():
        if not isinstance(value, bool):
            raise ProtocolError(f"{name} {shown(value)}: expected true or false", id)
    chosen: dict[str, Any] = {name: values.get(name, "auto") for name in ("prepare", "postprocess")}
    for name, value in chosen.items():
        if value not in AUTO_OR_NEVER:
            raise ProtocolError(f"{name} {str(value)[:50]!r}: expected one of {', '.join(AUTO_OR_NEVER)}", id)
    prepare = chosen["prepare"]
    if prepare == "never" and mask:
        raise ProtocolError("brain_mask goes with prepare auto, not never", id)
    names: dict[str, Any] = {key: _text(values, key, id) for key in ("model", "device") if key in values}
    if "model" in names:
        names["model"] = str(Path(names["model"]))  # in errors as it is hidden from them, without doubled slashes
    return Segment(
        id,
        "segment",
        images,
        output,
        mirrorings=int(mirrorings),
        brain_mask=mask,
        **wanted,
        **chosen,
        **names,
    )


def _text(values: dict, key: str, id: str) -> str:
    value = values[key]
    if not isinstance(value, str) or not value or "\0" in value:
        raise ProtocolError(f"{key} {str(value)[:50]!r}: expected a text", id)
    return value
