"""Which share of training each dataset gets: weights, leaving out and rebalancing, leaks into evaluation, statistics."""
