"""Feature extractors: VGG16-BN as the papers use it, any convolutional one of timm, and a small one for CPUs.

Each gives features at strides 4, 8 and 16. ImageNet weights are fetched where the machine can reach them, or read from
a file; data is never code: checkpoints are read as tensors only.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from crowdmask.errors import CrowdmaskError, DataError

STRIDES = (4, 8, 16)
IMAGENET = "imagenet"
TIMM = "timm/"

WAY_OUT = (
    "Give the path of a checkpoint file as `weights`, or train from random weights with `weights: none`, which needs "
    "far more images and time."
)


class Backbone(nn.Module):
    """Features by stride.

    Attributes:
        channels: Channels of the features at each of `STRIDES`.
    """

    channels: dict[int, int]

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """(B, 3, H, W) -> {stride: (B, channels, H / stride, W / stride)} for sides that are multiples of 16."""
        raise NotImplementedError


class Vgg16(Backbone):
    """VGG16-BN to conv5_3, 14.72 million parameters; taps as in methods d.1 and f.1."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import vgg16_bn

        layers = vgg16_bn(weights=None).features
        self.parts = nn.ModuleList([layers[:23], layers[23:33], layers[33:43]])
        self.channels = {4: 256, 8: 512, 16: 512}

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """See `Backbone.forward`."""
        found = {}
        for stride, part in zip(STRIDES, self.parts, strict=True):
            images = found[stride] = part(images)
        return found


class Small(Backbone):
    """Seven convolutions with batch norm, for tests, demos and CPUs (our choice).

    Args:
        width: Channels of the first; the others have two and four times as many.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sides = [(3, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 1)]
        first = nn.Sequential(*(_layer(*side) for side in sides))
        second = nn.Sequential(_layer(2 * width, 4 * width, 2), _layer(4 * width, 4 * width, 1))
        third = nn.Sequential(_layer(4 * width, 4 * width, 2), _layer(4 * width, 4 * width, 1))
        self.parts = nn.ModuleList([first, second, third])
        self.channels = {4: 2 * width, 8: 4 * width, 16: 4 * width}

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """See `Backbone.forward`."""
        found = {}
        for stride, part in zip(STRIDES, self.parts, strict=True):
            images = found[stride] = part(images)
        return found


def _layer(before: int, after: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class Timm(Backbone):
    """A model of timm that has features at strides 4, 8 and 16.

    Args:
        name: As timm knows it.
        pretrained: Fetch its weights.

    Raises:
        CrowdmaskError: timm has no such model, or it lacks one of the strides.
    """

    def __init__(self, name: str, pretrained: bool = False) -> None:
        super().__init__()
        import timm

        try:
            # Not all layers: a model's last stage may be deeper than what is used.
            strides = timm.create_model(name, features_only=True).feature_info.reduction()  # type: ignore[union-attr, operator]
            places = [strides.index(stride) for stride in STRIDES]
        except (RuntimeError, ValueError, AttributeError) as error:
            problem = f"backbone '{name}' has no features at strides 4, 8 and 16 ({' '.join(str(error).split())})"
            raise CrowdmaskError(f"{problem}. Choose a convolutional model of timm, such as timm/resnet18.") from None
        try:
            self.body = timm.create_model(name, features_only=True, out_indices=places, pretrained=pretrained)
        except Exception as error:  # whatever the hub's client raises
            problem = f"the weights of timm's {name} cannot be had ({' '.join(str(error).split())[:300]})"
            raise CrowdmaskError(f"{problem}. {WAY_OUT}") from None
        channels = self.body.feature_info.channels()  # type: ignore[union-attr, operator]
        self.channels = dict(zip(STRIDES, channels, strict=True))

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """See `Backbone.forward`."""
        return dict(zip(STRIDES, self.body(images), strict=True))


def build(name: str, weights: str | None = None, width: int = 16) -> Backbone:
    """A backbone by name.

    Args:
        name: `vgg16_bn`, `small`, or `timm/` and a name of timm.
        weights: None = random, `imagenet`, or the path of a checkpoint (safetensors, or PyTorch's format with tensors
            only); of a whole classifier its features are taken.
        width: Of `small`.

    Raises:
        CrowdmaskError: there is no such backbone, or its weights cannot be had.
    """
    if name.startswith(TIMM):
        made: Backbone = Timm(name.removeprefix(TIMM), weights == IMAGENET)
    elif name == "small":
        made = Small(width)
        if weights == IMAGENET:
            raise CrowdmaskError(f"the backbone 'small' has no ImageNet weights. {WAY_OUT}")
    elif name == "vgg16_bn":
        made = Vgg16()
        if weights == IMAGENET:
            _load(made, _imagenet_vgg16(), "VGG16-BN of torchvision")
    else:
        raise CrowdmaskError(f"no backbone '{name}'. Known: vgg16_bn, small, and timm/ with a name of timm.")
    if weights not in (None, IMAGENET):
        _load(made, _read(Path(weights)), weights)
    return made


def _imagenet_vgg16() -> dict[str, Tensor]:
    from torchvision.models import VGG16_BN_Weights

    try:
        return VGG16_BN_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise CrowdmaskError(f"torchvision's ImageNet weights of VGG16-BN cannot be had ({error}). {WAY_OUT}") from None


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(path, "file not found", "Correct the path of `weights`.") from None
    except Exception as error:  # what a damaged or hostile file raises is not listed anywhere
        problem = f"no checkpoint of tensors ({' '.join(str(error).split())[:300]})"
        raise DataError(path, problem, "Save it as safetensors, or as a state dict.") from None
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError(path, "holds something else than a state dict", "Save the state dict of the model.")
    return found


def _load(model: Backbone, weights: dict[str, Tensor], source: str) -> None:
    """Take the tensors of the features, by the classifier's or by our names.

    Raises:
        DataError: one is missing or has another shape.
    """
    wanted = model.state_dict()
    if isinstance(model, Vgg16) and "features.0.weight" in weights:
        start = {0: 0, 1: 23, 2: 33}
        weights = {
            key: weights[f"features.{start[int(part)] + int(layer)}.{leaf}"]
            for key in wanted
            for part, layer, leaf in [key.removeprefix("parts.").split(".")]
            if f"features.{start[int(part)] + int(layer)}.{leaf}" in weights
        }
    elif isinstance(model, Timm):
        weights = {key if key.startswith("body.") else f"body.{key}": value for key, value in weights.items()}
    for key, value in wanted.items():
        if key not in weights:
            raise DataError(source, f"no tensor {key}: weights of another backbone", "Choose the backbone that fits.")
        if weights[key].shape != value.shape:
            shapes = f"{tuple(weights[key].shape)} instead of {tuple(value.shape)}"
            raise DataError(source, f"tensor {key} is {shapes}", "Choose the backbone that fits.")
    model.load_state_dict({key: weights[key] for key in wanted})
