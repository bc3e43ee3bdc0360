"""PPO of stable-baselines3 and sb3-contrib, trained in their own loops."""
