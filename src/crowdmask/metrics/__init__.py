"""Comparison of masks with the truth, and with what simple methods give."""
