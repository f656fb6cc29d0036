"""Distils a drafter for a given target from the target's own outputs."""
