"""Saving, publishing, resuming and retiring checkpoints."""
