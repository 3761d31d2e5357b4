"""Data, lineage and the asset graph: everything around the training backend. No torch, ever; only `graph/` imports dagster."""
