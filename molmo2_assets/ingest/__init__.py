"""Published rows become examples: adapters, contracts, quarantine."""
