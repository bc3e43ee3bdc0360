"""All that is to be known of metarl on a GPU, by one command of a few minutes: ``python -m benchmarks.gpu``."""

import os

# Whoever only asks torch whether there is a GPU must not begin with CUDA for that: forks of such a process could not
# use it, and the measurements are forks. To be set before torch is imported.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
