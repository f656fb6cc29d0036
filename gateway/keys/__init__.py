"""Keys: authenticate, make, hash, mask."""
