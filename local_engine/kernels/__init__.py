"""Code for one kind of processor each, beside the torch code that says the same."""
