"""Wire formats: what clients send, checked into plain values."""
