"""Explain face verification: which regions of two faces argue for a match, and which against."""
