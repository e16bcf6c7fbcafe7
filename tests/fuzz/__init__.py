"""Damaged files by the thousand. What may happen: check.py. How to run: docs/protocols.md, "Fuzzing"."""
