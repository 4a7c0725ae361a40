"""The steps of ``python -m benchmarks.gpu_acceptance``, and what runs and judges them."""
