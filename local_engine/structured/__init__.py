"""Answers of a given form: grammars, tools and thoughts decide which tokens may come next and what the text means."""
