"""The commands of `penstock`, one file per group; what is heavy is imported inside the functions that need it."""
