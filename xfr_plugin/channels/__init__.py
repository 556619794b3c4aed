"""Channel maps: where on the face each channel of an embedding lives."""
