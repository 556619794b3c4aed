"""What every room needs and nothing of faces: files, weights, devices, memory, statistics."""
