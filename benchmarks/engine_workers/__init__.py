"""The engines that benchmarks.engine_cpu measures, each in a process and a Python of its own."""
