"""The Molmo2 architecture: vision, connector, decoder, generation."""
