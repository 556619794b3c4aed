"""Planted evidence: pairs in which it is known which region argues for or against a match."""
