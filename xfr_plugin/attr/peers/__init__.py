"""The other explanation methods of the field, for comparison."""
