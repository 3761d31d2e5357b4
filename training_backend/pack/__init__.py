"""Arrays → packed sequences: lengths without decoding, planning by two budgets, the loader. No torch here."""
