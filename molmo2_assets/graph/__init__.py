"""The asset graph: the only folder that imports dagster. One factory a layer, checks, how a step runs, the whole built once."""
