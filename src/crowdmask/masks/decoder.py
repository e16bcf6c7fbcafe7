"""SAM on the device: pictures to embeddings, prompts to low-resolution logits around their windows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import Tensor
from torchvision.transforms.functional import resize, to_pil_image

from crowdmask.errors import DataError, SettingsError
from crowdmask.masks.many_prompts import Answer, ManyPrompts, Own, Scene
from crowdmask.masks.prompts import BLOCK, Frame, Prompts
from crowdmask.masks.sampling import Box, Patch, sampler

CPU_BYTES = 1 << 25
"""What one step of the transformer may hold on a CPU, bytes. Larger ones are no faster, and the heap keeps them."""

CPU_LEAST = 8
"""... but at least so many prompts, for the work on tokens to pay."""

UPSCALING_BYTES = {"cpu": 1 << 22, "cuda": 1 << 30}
"""What one step of the upscaling may hold, bytes: on a CPU it should stay in the cache."""

TILES = 16
"""Most tiles that a GPU encodes together."""

GPU_SHARE = 0.25
"""Share of a GPU's memory that one step may hold. Of all its memory, not of what happens to be free: results of the
same input should not differ in their last bits from run to run."""

NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

T = TypeVar("T")

_log = logging.getLogger(__name__)


def fit(tile: np.ndarray, size: int) -> np.ndarray:
    """A tile, uint8 (h, w, 3) RGB, resized for SAM's input square as segment-anything does, but no side becomes 0."""
    frame = Frame(tile.shape[0], tile.shape[1], size)
    return np.array(resize(to_pil_image(np.ascontiguousarray(tile)), list(frame.input_hw)))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the machine has no memory left for a step."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in NO_MEMORY)


class Decoder:
    """SAM for many tiles with many prompts each.

    Args:
        sam: The model, frozen, in evaluation mode on its device.
        chunk: Most prompts decoded together; `chunk` as an attribute says how many fit, and falls when memory runs out.
        precision: fp32, or bf16 or fp16 for the encoder and all that is as large as the image.

    Raises:
        SettingsError: fp16 on a CPU.
    """

    def __init__(self, sam: Sam, chunk: int = 256, precision: str = "fp32") -> None:
        if precision == "fp16" and sam.device.type != "cuda":  # LayerNorm2d squares in half precision there
            raise SettingsError("sam.precision: fp16 needs a GPU; on a CPU use fp32 (or bf16)")
        self.sam = sam
        self.size: int = sam.image_encoder.img_size
        self.mask_side: int = sam.prompt_encoder.mask_input_size[0]
        self.dtype = DTYPES[precision]
        self.many = ManyPrompts(sam, self.dtype)
        self.most = self.chunk = chunk
        self.tiles = 1  # a CPU gains nothing from more
        if sam.device.type == "cuda":
            self.budget = int(torch.cuda.get_device_properties(sam.device).total_memory * GPU_SHARE)
            self.tiles = max(1, min(TILES, self.budget // self._bytes_a_tile()))
        with torch.inference_mode():
            self.without = sam.prompt_encoder.no_mask_embed.weight[0]

    def at_once(self, prompts: Prompts) -> int:
        """How many of these prompts are decoded together: what memory allows, and what has been found to fit."""
        tokens = 5 + (0 if prompts.points_xy is None else prompts.points_xy.shape[1] + (prompts.boxes_xyxy is None))
        tokens += 0 if prompts.boxes_xyxy is None else 2
        attention = self.sam.mask_decoder.transformer.layers[0].cross_attn_token_to_image
        height, width = self.sam.prompt_encoder.image_embedding_size
        own = 0 if prompts.masks is None else height * width if prompts.bias else prompts.masks.blocks.shape[1]
        # Up to 7 arrays of a number for each head, token and cell; and 8 of the cells that are a prompt's own.
        need = 7 * attention.num_heads * tokens * height * width * self.dtype.itemsize
        need += 8 * 4 * own * self.sam.mask_decoder.transformer_dim
        if self.sam.device.type == "cuda":
            return max(1, min(self.chunk, self.budget // need))
        return min(self.chunk, max(CPU_LEAST, CPU_BYTES // need))

    def _bytes_a_tile(self) -> int:
        """What the encoder holds for one tile."""
        encoder = self.sam.image_encoder
        if not isinstance(encoder, ImageEncoderViT):
            return self.size * self.size * 1024
        cells = (self.size // encoder.patch_embed.proj.kernel_size[0]) ** 2
        return 4 * encoder.blocks[0].attn.num_heads * cells * cells * self.dtype.itemsize

    @torch.inference_mode()
    def embed(self, pictures: Sequence[np.ndarray]) -> list[Tensor]:
        """Image embeddings, each float32 (1, C, E, E), of pictures from `fit`, up to `tiles` at once.

        A smaller group is filled up with black, so that a picture's embedding does not depend on the others.
        """
        black = np.zeros((1, 1, 3), np.uint8)
        start, out = 0, []
        while start < len(pictures):
            group = list(pictures[start : start + self.tiles])
            group += [black] * (self.tiles - len(group))
            done = self._attempt(self._encode, group)
            if done is None:
                self.tiles = self._halved("tiles", self.tiles)
                continue
            out += list(done[: len(pictures) - start, None].unbind())
            start += len(group)
        return out

    def _encode(self, pictures: list[np.ndarray]) -> Tensor:
        batch = torch.cat([self.sam.preprocess(self._send(p).permute(2, 0, 1).float()[None]) for p in pictures])
        with torch.autocast(self.sam.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.sam.image_encoder(batch).float()

    def _send(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.sam.device)

    def _attempt(self, step: Callable[..., T], *args: Any) -> T | None:
        """The step's result; None where memory ran out."""
        try:
            return step(*args)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # Outside of the handler: the error's traceback would keep the step's tensors alive.
        if self.sam.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _halved(self, what: str, count: int) -> int:
        if count <= 1:
            raise DataError(
                str(self.sam.device),
                f"out of memory with one of SAM's {what} at once",
                "Use a smaller `sam.model`, another device, or run fewer jobs at once (--cores).",
            )
        _log.warning("out of memory with %d %s at once; going on with %d", count, what, count // 2)
        return count // 2

    @torch.inference_mode()
    def tile(self, embedding: Tensor, frame: Frame) -> TileDecoder:
        """A decoder for the prompts of one tile.

        Args:
            embedding: float32 (1, C, E, E), from `embed`.
            frame: Geometry of the tile.
        """
        return TileDecoder(self, embedding, frame)


class TileDecoder:
    """SAM's decoder on one image embedding. See `Decoder.tile`."""

    def __init__(self, decoder: Decoder, embedding: Tensor, frame: Frame) -> None:
        self.decoder, self.sam, self.many = decoder, decoder.sam, decoder.many
        self.side = embedding.shape[-1]
        self.cells = embedding.flatten(2)[0].T.contiguous()
        self.sampler = sampler(frame, decoder.mask_side)
        self.scenes: dict[float | None, tuple[Scene, Tensor]] = {}

    @torch.inference_mode()
    def decode(self, prompts: Prompts, windows: Sequence[Box]) -> Iterator[Patch]:
        """Logits around the windows of all prompts, in order.

        Args:
            prompts: From `prompts.assemble`.
            windows: Of each prompt, pixels of the tile, inside of it and not empty.

        Raises:
            DataError: not even a single prompt fits into memory.

        Source: methods a.4 (contract of `predict_torch`), a.6 step 6 (two passes).
        """
        yield from self._in_chunks(self._chunk, prompts, windows)

    @torch.inference_mode()
    def decode_three(self, prompts: Prompts, windows: Sequence[Box]) -> Iterator[tuple[Patch, Patch, Patch]]:
        """All three masks of each prompt instead of the best; prompts of points alone.

        Args:
            prompts: Points and labels; boxes and masks are not looked at.
            windows: As `decode`.

        Raises:
            DataError: not even a single prompt fits into memory.
        """
        yield from self._in_chunks(self._three, prompts, windows)

    def _in_chunks(self, step: Callable[..., list[T]], prompts: Prompts, windows: Sequence[Box]) -> Iterator[T]:
        start = 0
        while start < len(windows):
            part = slice(start, min(start + self.decoder.at_once(prompts), len(windows)))
            done = self.decoder._attempt(step, prompts, part, windows[part])
            if done is None:
                self.decoder.chunk = self.decoder._halved("prompts", part.stop - part.start)
                continue
            yield from done
            start = part.stop

    def _three(self, prompts: Prompts, part: slice, windows: Sequence[Box]) -> list[tuple[Patch, Patch, Patch]]:
        assert prompts.points_xy is not None and prompts.point_labels is not None
        points = self._send(prompts.points_xy[part]), self._send(prompts.point_labels[part])
        scene, _ = self._scene(None)
        answer = self.many.transform(scene, self._sparse(points, None, len(windows)), None, [0, 2, 3, 4])
        scores = self.many.scores(answer)
        chosen = torch.ones(len(windows), dtype=torch.long, device=scores.device)
        one, two, three = (self._patches(answer, k * chosen, scores[:, k], windows) for k in (1, 2, 3))
        return list(zip(one, two, three, strict=True))

    def _chunk(self, prompts: Prompts, part: slice, windows: Sequence[Box]) -> list[Patch]:
        count = part.stop - part.start
        points = None
        if prompts.points_xy is not None and prompts.point_labels is not None:
            points = self._send(prompts.points_xy[part]), self._send(prompts.point_labels[part])
        boxes = None if prompts.boxes_xyxy is None else self._send(prompts.boxes_xyxy[part])
        masks = None
        if prompts.masks is not None:
            masks = prompts.masks.take(part)
        own = None
        if prompts.bias is not None and masks is not None:
            scene, background = self._scene(None)
            first = self._first_pass(scene, points, count)
            inside = self._send(masks.dense()) > 0
            dense = self.sam.prompt_encoder._embed_masks(first + torch.where(inside, prompts.bias, -prompts.bias))
            own = Own(None, dense.flatten(2).transpose(1, 2) - background)
        elif masks is not None:
            scene, background = self._scene(masks.logit)
            blocks = torch.where(self._send(masks.inside), masks.logit, -masks.logit)
            dense = self._blocks(blocks.view(-1, 1, BLOCK, BLOCK)).view(count, -1, self.cells.shape[1])
            own = Own(self._send(masks.blocks), dense - background)
        else:
            scene, _ = self._scene(None)
        sparse = self._sparse(points, boxes, count)
        answer, chosen, score = self._choose(scene, sparse, own, prompts.multimask)
        if not score.isfinite().all():
            raise DataError("SAM", "its answer is not a number", "Use `sam.precision: fp32`, or check the checkpoint.")
        return self._patches(answer, chosen, score, windows)

    def _send(self, array: np.ndarray) -> Tensor:
        return self.decoder._send(array)

    def _scene(self, logit: float | None) -> tuple[Scene, Tensor]:
        """The tile with the constant part of the dense prompt, and that part (C,); None = no mask prompt."""
        if logit not in self.scenes:
            constant = self.decoder.without
            if logit is not None:
                constant = self._blocks(torch.full((1, 1, BLOCK, BLOCK), -logit, device=self.sam.device))[0]
            self.scenes[logit] = self.many.scene(self.cells + constant), constant
        return self.scenes[logit]

    def _blocks(self, blocks: Tensor) -> Tensor:
        """Dense embedding of 4 x 4 blocks of mask logits, (M, 1, 4, 4) -> (M, C).

        Two convolutions of kernel 2 and stride 2 with norms of single pixels: a cell depends on its block alone.
        """
        return self.sam.prompt_encoder.mask_downscaling(blocks)[:, :, 0, 0]

    def _sparse(self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, count: int) -> Tensor:
        if points is None and boxes is None:
            return torch.empty((count, 0, self.cells.shape[1]), device=self.sam.device)
        return self.sam.prompt_encoder(points=points, boxes=boxes, masks=None)[0]

    def _choose(self, scene: Scene, sparse: Tensor, own: Own | None, multimask: bool) -> tuple[Answer, Tensor, Tensor]:
        """Transformed cells, the mask token of each prompt (0, or the best of 1 to 3) and its score."""
        asked = [0, 2, 3, 4] if multimask else [0, 1]
        answer = self.many.transform(scene, sparse, own, asked)
        scores = self.many.scores(answer)
        if not multimask:
            return answer, torch.zeros(len(sparse), dtype=torch.long, device=sparse.device), scores[:, 0]
        best = scores[:, 1:].max(dim=1)
        return answer, best.indices + 1, best.values

    def _token(self, answer: Answer, chosen: Tensor) -> Tensor:
        """The chosen mask token of each prompt, (B, C); the tokens in `answer` begin with the IoU token."""
        at = chosen.clamp_min(1)  # asked for: IoU, 0 or IoU, 1, 2, 3
        return answer.tokens.gather(1, at[:, None, None].expand(-1, 1, answer.tokens.shape[2]))[:, 0]

    def _first_pass(self, scene: Scene, points: tuple[Tensor, Tensor] | None, count: int) -> Tensor:
        """Best of three low-resolution masks from the points alone: (B, 1, 4 E, 4 E)."""
        answer, chosen, _ = self._choose(scene, self._sparse(points, None, count), None, multimask=True)
        corner = torch.zeros(count, dtype=torch.long, device=self.sam.device)
        return self._logits(answer, chosen, corner, corner, (self.side, self.side))[:, None]

    def _logits(self, answer: Answer, chosen: Tensor, top: Tensor, left: Tensor, side: tuple[int, int]) -> Tensor:
        cells = self.many.cells(answer, top, left, side)
        tokens = self._token(answer, chosen)
        # Upscaling holds 4 (C/4) + 16 (C/8) floats a cell, each twice.
        step = max(1, UPSCALING_BYTES[cells.device.type] // (24 * cells[0].numel()))
        parts = [
            self.many.logits(tokens[k : k + step], cells[k : k + step], side, chosen[k : k + step])
            for k in range(0, len(cells), step)
        ]
        return torch.cat(parts)

    def _patches(self, answer: Answer, chosen: Tensor, score: Tensor, windows: Sequence[Box]) -> list[Patch]:
        """Logits of each prompt on the cells that its window needs."""
        spans = []
        for x0, y0, w, h in windows:
            up, down = self.sampler.rows.span(y0, h)
            start, end = self.sampler.cols.span(x0, w)
            spans.append((up // BLOCK, -(-down // BLOCK), start // BLOCK, -(-end // BLOCK)))
        tall, wide = max(b - t for t, b, _, _ in spans), max(r - lft for _, _, lft, r in spans)
        top = np.array([min(t, self.side - tall) for t, _, _, _ in spans])
        left = np.array([min(lft, self.side - wide) for _, _, lft, _ in spans])
        low = self._logits(answer, chosen, self._send(top), self._send(left), (tall, wide)).cpu().numpy()
        return [
            Patch(logits, BLOCK * t, BLOCK * lft, value)
            for logits, t, lft, value in zip(low, top.tolist(), left.tolist(), score.tolist(), strict=True)
        ]
