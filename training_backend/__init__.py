"""The training backend: examples in, checkpoints and predictions out.

Usable alone from a run-spec file. Never imports dagster or molmo2_assets. Importing this package, `training_backend.data`,
`training_backend.config` and `training_backend.api` costs no torch.
"""
