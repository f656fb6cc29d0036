"""The sentence: what happens to one chat request, in order."""
