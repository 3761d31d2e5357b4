"""One mask specification and the back ends that obey it."""
