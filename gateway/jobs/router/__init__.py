"""Jobs that look after the artifacts of the router: judge them, recalibrate them, watch for drift."""
