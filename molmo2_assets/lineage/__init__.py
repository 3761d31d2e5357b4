"""Lineage from manifests alone: what changed, what is stale and why, what a checkpoint was made of."""
