"""Our own book of what a provider's usage costs, read in the grain of its bill."""
