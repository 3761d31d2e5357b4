"""Scores: pure metrics, the best predictor that sees no pixels beside each of them, and the scoreboard of all stages."""
