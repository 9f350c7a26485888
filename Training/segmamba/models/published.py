"""Checkpoints as the authors and users of SegMamba publish them, recognised by their keys, loaded strictly.

Known forms: `released` with 1, 2 or 3 scan directions (the one checkpoint the authors shared has 1), and `v1`.
Distributed trainings prefix keys with ``module.``; some tools wrap the tensors in a dict.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from segmamba.errors import InputError, explain_pickle
from segmamba.networks.segmamba import NetworkConfig, SegMamba

_WRAPPERS = ("module", "state_dict", "model", "model_state_dict", "net")
_FORMS = {"vit.": "released", "mamba_encoder.": "v1"}


def load_published(path: Path | str, *, mamba_residual: bool | None = None) -> SegMamba:
    """Reads a .pt/.pth/.safetensors checkpoint into a network of the form its keys tell.

    mamba_residual: whether its Mamba layers add their input. No key tells; None means the form's own default
    (`released`: yes, as since 5 June 2024; `v1`: no). Raises InputError where the file cannot be read, is no
    SegMamba, or does not fit exactly: then it names what is missing and what was found.
    """
    state = _unwrap(_read(Path(path)), path)
    config = _recognise(state, mamba_residual, path)
    network = SegMamba(config)
    load_strictly(network, state, str(path))
    return network


def load_strictly(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Loads all tensors or none.

    Args:
        network: a SegMamba, or another network with a `config.name`.
        state: name -> tensor.
        where: what the error begins with, such as the model's folder.

    Raises:
        InputError: names what is missing, unexpected, or of another shape.
    """
    wanted = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in state.items()}
    if wanted != found:
        differing = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
        kind = network.config.form if isinstance(network, SegMamba) else cast(Any, network.config).name
        raise InputError(
            f"{where}: {len(found)} tensors do not fit the {kind!r} network of {len(wanted)}: missing "
            f"{_some(wanted.keys() - found.keys())}; unexpected {_some(found.keys() - wanted.keys())}; "
            f"of another shape {_some(differing)}"
        )
    network.load_state_dict(state)


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"checkpoint {path} does not exist") from None
    except Exception as error:  # the pickle module promises no end to what a broken file raises
        raise InputError(
            f"checkpoint {path} cannot be read: {explain_pickle(error)}; expected a file of tensors only (.pt, .pth or "
            ".safetensors): files that hold Python objects are refused, save their state dict alone"
        ) from None


def _unwrap(content: object, path: Path | str) -> dict[str, Tensor]:
    """The dict of tensors inside `content`, keys without ``module.``, in float32."""
    while isinstance(content, dict) and not all(isinstance(v, Tensor) for v in content.values()):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        found = sorted(map(str, content))[:8] if isinstance(content, dict) else type(content).__name__
        raise InputError(f"checkpoint {path} holds no dict of tensors; found {found}")
    return {name.removeprefix("module."): tensor.float() for name, tensor in content.items()}


def _recognise(state: dict[str, Tensor], mamba_residual: bool | None, path: Path | str) -> NetworkConfig:
    prefix = next((p for p in _FORMS if any(name.startswith(p) for name in state)), None)
    needed = [f"{prefix}downsample_layers.{i}.{min(i, 1)}.weight" for i in range(4)] + [
        "encoder1.layer.conv1.conv.weight"
    ]
    needed += ["encoder5.layer.conv1.conv.weight", "out.conv.conv.weight"]
    absent = [name for name in needed if name not in state or state[name].ndim != 5]
    if prefix is None or absent:
        missing = "keys that begin with vit. or mamba_encoder." if prefix is None else _some(absent)
        raise InputError(
            f"checkpoint {path} is not a SegMamba of a published form: missing {missing}; found {_some(state)}"
        )
    form = _FORMS[prefix]
    weights = [state[name] for name in needed]
    directions = ["forward"]
    if any(name.endswith("A_b_log") for name in state):
        directions.append("reverse")
    if any(name.endswith("A_s_log") for name in state):
        directions.append("slices")
    depths = [len({n.split(".")[3] for n in state if n.startswith(f"{prefix}stages.{i}.")}) or 1 for i in range(4)]
    return NetworkConfig(
        form=form,
        in_channels=weights[0].shape[1],
        out_channels=weights[6].shape[0],
        features=cast(tuple[int, int, int, int], tuple(w.shape[0] for w in weights[:4])),
        full_features=weights[4].shape[0],
        bottleneck=weights[5].shape[0],
        depths=cast(tuple[int, int, int, int], tuple(depths)),
        directions=tuple(directions),
        mamba_residual=(form == "released") if mamba_residual is None else mamba_residual,
    )


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "nothing"
