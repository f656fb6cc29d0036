"""Triton kernels of the GPU path, one file each, with the same function in plain torch beside it.

Nothing here is imported on a CPU: `kernel_set.reference_kernels` is the whole path without Triton. Not yet run on a GPU.
"""
