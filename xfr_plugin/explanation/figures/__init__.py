"""Pictures of explanations, comparisons, matches and channels."""
