"""Things drawn over faces, to see whether a map finds them. No training may import this room."""
