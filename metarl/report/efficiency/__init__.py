"""Sample efficiency: how good runs were during training, by the steps or the seconds that it took."""
