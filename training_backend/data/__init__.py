"""The torch-free floor that both packages stand on: what an example is, how rows lie on disk, which row a position means."""
