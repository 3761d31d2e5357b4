"""The Molmo2 architecture: vision, connector, decoder, generation; weights in, out, and from other layouts."""
