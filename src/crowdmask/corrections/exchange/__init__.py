"""Masks out to annotation tools and back: one module a format, and the record of what was handed out."""
