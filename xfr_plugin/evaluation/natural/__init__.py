"""What each region of a natural face contributes to a score: measured by taking regions away, not by any method."""
