"""Losses of counting models: pure functions of tensors, for any device and float type."""
