"""Architectures written in plain torch, and what several adapters share: checkpoints, text encoders, labels."""
