"""One thread, so that tests neither wait for cores nor depend on their number."""

import torch

torch.set_num_threads(1)
