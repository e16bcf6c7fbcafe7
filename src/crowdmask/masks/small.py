"""The small SAM that ships: segment-anything's prompt encoder and mask decoder behind a convolutional encoder.

A convolutional encoder learns from little data and time, where a vision transformer from random weights does not (our
choice; the papers use the official encoders). Input side 256, embedding 128 x 32 x 32, mask logits 128 x 128.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE_SIZE = 256
DIM = 128


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with group normalisation around an identity path."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(y)))


class ContextBlock(nn.Module):
    """Pre-norm transformer block over all cells of a small map."""

    def __init__(self, channels: int, heads: int = 6) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 3 * channels), nn.GELU(), nn.Linear(3 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        b, c, h, w = x.shape
        t = x.flatten(2).transpose(1, 2)  # B, hw, C
        qkv = self.qkv(self.norm1(t)).view(b, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        t = t + self.out(a.transpose(1, 2).reshape(b, h * w, c))
        t = t + self.mlp(self.norm2(t))
        return t.transpose(1, 2).reshape(b, c, h, w)


class SmallEncoder(nn.Module):
    """Convolutional pyramid to stride 16 with global context, fused back to stride 8.

    Args:
        img_size: Side of the input square, a multiple of 16, pixels.
        out_chans: Channels of the embedding.
        widths: Channels at strides 2, 4, 8 and 16.
    """

    def __init__(
        self, img_size: int = IMAGE_SIZE, out_chans: int = DIM, widths: tuple[int, int, int, int] = (32, 64, 128, 192)
    ) -> None:
        super().__init__()
        self.img_size = img_size
        w2, w4, w8, w16 = widths
        self.stem = nn.Sequential(nn.Conv2d(3, w2, 3, stride=2, padding=1), ResidualBlock(w2))
        self.stage4 = nn.Sequential(nn.Conv2d(w2, w4, 3, stride=2, padding=1), ResidualBlock(w4), ResidualBlock(w4))
        self.stage8 = nn.Sequential(nn.Conv2d(w4, w8, 3, stride=2, padding=1), ResidualBlock(w8), ResidualBlock(w8))
        self.stage16 = nn.Sequential(nn.Conv2d(w8, w16, 3, stride=2, padding=1), ResidualBlock(w16))
        side = img_size // 16
        self.position = nn.Parameter(torch.zeros(1, w16, side, side))
        self.context = nn.Sequential(ContextBlock(w16), ContextBlock(w16))
        self.from4 = nn.Conv2d(4 * w4, out_chans, 1)
        self.from8 = nn.Conv2d(w8, out_chans, 1)
        self.from16 = nn.Conv2d(w16, out_chans, 1)
        self.neck = nn.Sequential(
            ResidualBlock(out_chans), nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False), LayerNorm2d(out_chans)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalised image (B, 3, S, S) -> embedding (B, out_chans, S/8, S/8)."""
        c4 = self.stage4(self.stem(x))
        c8 = self.stage8(c4)
        c16 = self.context(self.stage16(c8) + self.position)
        fused = self.from8(c8) + self.from4(F.pixel_unshuffle(c4, 2))
        fused = fused + F.interpolate(self.from16(c16), scale_factor=2.0, mode="nearest")
        return self.neck(fused)


def build_small() -> Sam:
    """The small SAM with random weights, in evaluation mode."""
    side = IMAGE_SIZE // 8
    sam = Sam(
        image_encoder=SmallEncoder(),  # type: ignore[arg-type]
        prompt_encoder=PromptEncoder(
            embed_dim=DIM,
            image_embedding_size=(side, side),
            input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=DIM, mlp_dim=4 * DIM, num_heads=4),
            transformer_dim=DIM,
            iou_head_depth=3,
            iou_head_hidden_dim=DIM,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    return sam.eval()
