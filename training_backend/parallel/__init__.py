"""Device mesh and strategies."""
