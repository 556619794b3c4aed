"""Putting one face's region into another: regions that are exchanged, blending, donors, planting."""
