"""Faces: from a photo to an aligned face, and its named regions."""
