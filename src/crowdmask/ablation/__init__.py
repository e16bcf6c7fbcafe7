"""Ablations: variants of the method and other methods, measured on the same images with true masks."""
