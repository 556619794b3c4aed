"""What attribution methods are built from."""
