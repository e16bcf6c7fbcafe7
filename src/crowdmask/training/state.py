"""Checkpoints and models as safetensors: tensors, and a JSON header that says what they are; nothing is code."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from crowdmask.errors import DataError
from crowdmask.files import reading, replacing
from crowdmask.models.base import Counter
from crowdmask.training.plain import differences, listed, to_plain, to_value
from crowdmask.training.randomness import random_state

FORMAT = 1
"""Raised when the layout of the files changes."""

KEY = "crowdmask"
"""Name of the header in the metadata of the file."""


@dataclass(frozen=True)
class Identity:
    """What a training is a training of; a checkpoint of another one is refused.

    Attributes:
        model: Name of the model.
        settings: All settings that the result depends on, as JSON has them.
        data: What the data are known by, as JSON has it: hashes of the tables, of the lists of images.
    """

    model: str
    settings: Mapping[str, Any]
    data: Any


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epoch: Epochs that are done.
        best_epoch: Epochs that were done when the best weights were found; 0 = none yet.
        best: Metrics of that validation.
        waited: Validations since then.
        stopped: Whether the patience has run out.
    """

    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    waited: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class Saved:
    """A file as read.

    Attributes:
        path: Where it lies.
        header: What it says of itself.
        tensors: By name.
    """

    path: Path
    header: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors whose name begins with `name/`, without that."""
        return {key.removeprefix(f"{name}/"): x for key, x in self.tensors.items() if key.startswith(f"{name}/")}


def _header(kind: str, identity: Identity) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": kind,
        "model": identity.model,
        "settings": identity.settings,
        "data": identity.data,
        "versions": {
            "crowdmask": version("crowdmask"),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }


def _write(path: Path, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)
    # Clones, because safetensors refuses tensors that share memory.
    ready = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    try:
        with replacing(path) as temporary:
            save_file(ready, temporary, {KEY: text})
    except (OSError, SafetensorError) as error:
        way_out = (
            "Make room there and run again: what was written before is unharmed, and the training goes on from it."
        )
        raise DataError(path, f"cannot be written ({error})", way_out) from None


def read(path: str | Path, kind: Literal["checkpoint", "model"], way_out: str) -> Saved:
    """Read a file that this module wrote.

    Raises:
        DataError: missing, damaged, not written by crowdmask, or of another kind or format.
    """
    path = Path(path)
    try:
        with reading(path, way_out), safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise DataError(path, f"damaged, or no safetensors file ({error})", way_out) from None
    try:
        header = json.loads(text) if text is not None else None
    except ValueError:
        header = None
    if not isinstance(header, dict) or not {"format", "kind", "model", "settings", "data"} <= header.keys():
        raise DataError(path, f"its metadata have no header '{KEY}': not written by crowdmask", way_out)
    if header["kind"] != kind:
        raise DataError(path, f"is a {header['kind']}, not a {kind}", way_out)
    if header["format"] != FORMAT:
        raise DataError(path, f"has format {header['format']}, this version reads {FORMAT}", way_out)
    return Saved(path, header, tensors)


def check_tensors(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str, fix: str) -> None:
    """Raise where names, shapes or dtypes differ.

    Raises:
        DataError: naming the tensors.
    """
    faults = [f"no tensor {name}" for name in wanted if name not in found]
    faults += [f"unknown tensor {name}" for name in found if name not in wanted]
    for name in wanted.keys() & found.keys():
        for key in ("shape", "dtype"):
            one, other = getattr(found[name], key), getattr(wanted[name], key)
            if one != other:
                one, other = (tuple(x) if key == "shape" else x for x in (one, other))
                faults.append(f"tensor {name} has {key} {one}, not {other}")
    if faults:
        raise DataError(path, f"does not fit the {what}: {listed(sorted(faults))}", fix)


ANEW = "Restore what it was made with to go on, or delete the file to start anew."


def save_checkpoint(
    path: Path,
    identity: Identity,
    progress: Progress,
    model: torch.nn.Module,
    average: torch.nn.Module | None,
    optimiser: torch.optim.Optimizer,
    schedule: LRScheduler | None,
    noise: Mapping[str, Tensor],
) -> None:
    """Write everything that a training needs to go on as if nothing had happened.

    Args:
        path: Where to; the file of before stays until this one is complete.
        identity: Of the training.
        progress: How far it has come.
        model: The network.
        average: Its average, if there is one.
        optimiser: The optimiser.
        schedule: Of the learning rates.
        noise: States of the random generators, stacked over the processes; see `randomness.random_state`.

    Raises:
        DataError: it cannot be written.
    """
    state = optimiser.state_dict()
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average/{name}": value for name, value in average.state_dict().items()}
    tensors |= {f"random/{name}": value for name, value in noise.items()}
    plain: dict[int, dict[str, Any]] = {}
    for index, values in state["state"].items():
        plain[index] = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser/{index}/{name}"] = value
    header = _header("checkpoint", identity) | {
        "progress": to_plain(vars(progress)),
        "processes": len(noise["torch"]),
        "optimiser": {
            "kind": _kind(optimiser),
            "groups": to_plain(state["param_groups"]),
            "state": to_plain(plain),
        },
        "schedule": None if schedule is None else {"kind": _kind(schedule), "state": to_plain(schedule.state_dict())},
    }
    _write(path, tensors, header)


def load_checkpoint(
    path: Path,
    identity: Identity,
    processes: int,
    model: torch.nn.Module,
    average: torch.nn.Module | None,
    optimiser: torch.optim.Optimizer,
    schedule: LRScheduler | None,
) -> tuple[Progress, dict[str, Tensor]]:
    """Put a checkpoint into model, average, optimiser and schedule; all is checked before anything is changed.

    Returns:
        How far the training has come, and the states of the random generators, as they were given to
        `save_checkpoint`.

    Raises:
        DataError: the file is damaged or of another model, other settings or data, or its tensors do not fit.
    """
    saved = read(path, "checkpoint", "Delete the file to start anew.")
    header = saved.header
    if header["model"] != identity.model:
        raise DataError(path, f"is a checkpoint of {header['model']}, not of {identity.model}", ANEW)
    for name, wanted in (("settings", identity.settings), ("data", identity.data)):
        # As JSON gives it back: tuples are lists there, keys are text.
        lines = differences(header[name], json.loads(json.dumps(wanted)), name)
        if lines:
            raise DataError(path, f"was made with other {name}: {listed(lines)}", ANEW)
    try:
        progress = Progress(**to_value(header["progress"]))
        kinds = header["optimiser"]["kind"], (header["schedule"] or {}).get("kind")
        groups, plain = to_value(header["optimiser"]["groups"]), to_value(header["optimiser"]["state"])
        rates = None if header["schedule"] is None else to_value(header["schedule"]["state"])
        number = header["processes"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(path, f"damaged header ({error!r})", "Delete the file to start anew.") from None
    if number != processes:
        raise DataError(path, f"was made by {number} processes, not {processes}", ANEW)
    for name, one, other in (
        ("optimiser", kinds[0], _kind(optimiser)),
        ("schedule", kinds[1], None if schedule is None else _kind(schedule)),
        ("average of the weights", bool(saved.part("average")), average is not None),
    ):
        if one != other:
            raise DataError(path, f"{name}: {one} in the file, {other} now", ANEW)

    check_tensors(path, saved.part("model"), model.state_dict(), "model", ANEW)
    if average is not None:
        check_tensors(path, saved.part("average"), average.state_dict(), "average of the weights", ANEW)
    state = _optimiser_state(saved, groups, plain, optimiser)
    noise = saved.part("random")
    own = {name: value.expand(processes, *value.shape) for name, value in random_state(_device(model)).items()}
    check_tensors(path, noise, own, "random generators of this device", ANEW)

    model.load_state_dict(saved.part("model"))
    if average is not None:
        average.load_state_dict(saved.part("average"))
    optimiser.load_state_dict(state)
    if schedule is not None:
        schedule.load_state_dict(rates or {})
    return progress, noise


def _optimiser_state(saved: Saved, groups: Any, plain: Any, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The state dict that the optimiser takes; a tensor for each weight must have the weight's shape."""
    now = optimiser.state_dict()["param_groups"]
    if [group["params"] for group in groups] != [group["params"] for group in now]:
        raise DataError(saved.path, "the optimiser's groups have other parameters", ANEW)
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Any]] = {index: dict(values) for index, values in plain.items()}
    faults = []
    for key, value in saved.part("optimiser").items():
        index, _, name = key.partition("/")
        if not index.isdecimal() or int(index) >= len(weights):
            faults.append(f"unknown tensor optimiser/{key}")
        elif value.ndim and value.shape != weights[int(index)].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(weights[int(index)].shape)}"
            faults.append(f"tensor optimiser/{key} has shape {shapes}")
        else:
            state.setdefault(int(index), {})[name] = value
    # Every weight that has learned has the same names.
    names = {frozenset(values) for values in state.values()}
    if len(names) > 1:
        faults.append("the optimiser's tensors of some weights are missing")
    if faults:
        raise DataError(saved.path, f"does not fit the optimiser: {listed(faults)}", ANEW)
    return {"state": state, "param_groups": groups}


def save_model(
    path: Path, identity: Identity, model: torch.nn.Module, progress: Progress, more: Mapping[str, Any] | None = None
) -> None:
    """Write weights for use, with the model's name and settings.

    Args:
        path: Where to.
        identity: Of the training.
        model: The network, or the average of its weights.
        progress: Its best epoch and metrics go into the header.
        more: Further entries of the header, as JSON has them.

    Raises:
        DataError: it cannot be written.
    """
    header = _header("model", identity) | {"epoch": progress.best_epoch, "metrics": progress.best, **(more or {})}
    _write(path, model.state_dict(), header)


def load_model(path: str | Path, build: Callable[[str, dict[str, Any]], Counter]) -> Counter:
    """The model of a file, ready to predict, on the CPU.

    Args:
        path: A file of `save_model`.
        build: Makes the network, with any weights, of the model's name and settings; it may raise `CrowdmaskError`.

    Raises:
        DataError: the file is missing, damaged, or its tensors do not fit the network.
    """
    fix = "Give a model that this version of crowdmask trained."
    saved = read(path, "model", fix)
    model = build(saved.header["model"], saved.header["settings"])
    check_tensors(saved.path, saved.tensors, model.state_dict(), f"model {saved.header['model']}", fix)
    model.load_state_dict(saved.tensors)
    return model.eval()


def _kind(thing: object) -> str:
    return type(thing).__name__


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
