"""Protocols that tell which explanation can be believed, and the tables that compare them."""
