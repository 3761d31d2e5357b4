"""Launchers: how a run spec becomes processes."""
