"""Counting models: networks that turn an image into points or a density, and the losses that they are trained with."""
