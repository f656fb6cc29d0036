"""Model files and the decoder they fill."""
