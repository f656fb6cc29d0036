"""A whole step of a llama-shaped decoder in C++, for CPUs with AVX-512; compiled when it is first needed."""
