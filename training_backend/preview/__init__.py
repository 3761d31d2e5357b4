"""Encoded examples as a static page for people: the run kind `preview`. No torch here."""
