"""From two photos to the decision and its reasons: pipeline, explanation, check, comparison, pictures."""
