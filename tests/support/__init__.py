"""Shared parts of tests: builders of small inputs, servers, process helpers."""
