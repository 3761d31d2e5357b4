"""Example → arrays: prompts and answers, crops and frames, the message tree, tokens. No torch here."""
