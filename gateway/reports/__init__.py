"""What people read: sums of usage, pages of requests, one request in full; read-only."""
