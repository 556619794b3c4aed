"""Evidence by intervention: regions of a face are removed, alone or together, and the score is read."""
