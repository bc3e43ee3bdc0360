"""PPO from stable-baselines3 and sb3-contrib, trained by their own loops."""
