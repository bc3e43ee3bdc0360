"""For all tests: one thread. The tensors are small, and threads that wait for each other take the time of others."""

import torch

torch.set_num_threads(1)
