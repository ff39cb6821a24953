"""What knows medicine: the fact table, the truth oracle, neutral edits, the edit audit. On the rules alone."""
