"""Where the time goes: the stage's functions wrapped in clocks, from outside, while it runs in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.image import Stage
from benchmarks.measure import sync
from crowdmask.masks import rle, segment
from crowdmask.masks.decoder import Decoder
from crowdmask.masks.many_prompts import ManyPrompts
from crowdmask.masks.rle import Window
from crowdmask.masks.sampling import Sampler

IO, HOST, ENCODER = "reading and writing", "host: tiles, superpixels, prompts", "image encoder"
TOKENS, SHARED, TRANSFORMER = "prompt encoder", "decoder: shared by an image", "decoder: transformer"
UPSCALING, SAMPLING, RLE, OTHER = "decoder: upscaling", "sampling of windows", "run lengths", "other"
PARTS = [IO, HOST, ENCODER, TOKENS, SHARED, TRANSFORMER, UPSCALING, SAMPLING, RLE, OTHER]
"""In the order of the flow."""


class Clocks:
    """Seconds by part; a part inside another one is not counted twice."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._inner = [0.0]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block, less the parts inside of it."""
        sync(self.device)
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            sync(self.device)
            took = time.perf_counter() - start
            self.seconds[name] += took - self._inner.pop()
            self._inner[-1] += took

    def wrapped(self, work: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, counted."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return work(*args, **kwargs)

        return counted


@contextmanager
def clocked(clocks: Clocks, sam: Any) -> Iterator[None]:
    """Put clocks on the stage's functions, and have it do one thing after the other."""
    places: list[tuple[Any, str, str]] = [
        (segment, "read_row", IO),
        (segment, "plan", HOST),
        (segment, "clip_to_circle", HOST),
        (segment, "assemble", HOST),
        (segment, "fit", HOST),
        (rle, "decode", HOST),
        (Decoder, "embed", ENCODER),
        (sam.prompt_encoder, "forward", TOKENS),
        (sam.prompt_encoder.mask_downscaling, "forward", TOKENS),
        (ManyPrompts, "scene", SHARED),
        (ManyPrompts, "transform", TRANSFORMER),
        (ManyPrompts, "scores", TRANSFORMER),
        (ManyPrompts, "cells", UPSCALING),
        (ManyPrompts, "logits", UPSCALING),
        (Sampler, "window", SAMPLING),
        (Window, "tight", RLE),
        (rle, "encode", RLE),
    ]
    kept: list[tuple[Any, str, Any, bool]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        kept.append((owner, name, getattr(owner, name), name in vars(owner)))
        setattr(owner, name, value)

    try:
        for owner, name, part in places:
            put(owner, name, clocks.wrapped(getattr(owner, name), part))
        put(segment, "ahead", iter)
        put(segment, "behind", map)
        yield
    finally:
        for owner, name, value, own in reversed(kept):
            if own:
                setattr(owner, name, value)
            else:
                delattr(owner, name)


class Where(Stage):
    """The stage as it runs, and then with clocks."""

    def run(self) -> dict[str, float]:
        """Seconds of the stage as it is, and of its parts, one after the other."""
        whole = super().run()
        clocks = Clocks(self.sam.device)
        start = time.perf_counter()
        with clocked(clocks, self.sam):
            with clocks.part(IO):
                superpixels = list(self.superpixels())
            made = list(self.made(iter(superpixels)))
            with clocks.part(IO):
                self.write(iter(made))
        serial = time.perf_counter() - start
        clocks.seconds[OTHER] = serial - sum(clocks.seconds.values())
        return {**whole, **{f"part: {name}": seconds for name, seconds in clocks.seconds.items()}}
