"""The parts of a decoder layer, each beside nothing but torch."""
