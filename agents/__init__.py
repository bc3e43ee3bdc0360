"""Agents, one folder per algorithm. Importing this package registers every agent that a configuration can name."""

from metarl.agents.belief import BeliefConfig, BeliefPPO
from metarl.agents.es import ES, ESMAML, ESConfig, ESMAMLConfig
from metarl.agents.imitation import AD, DPT, ADConfig, DAgger, DAggerConfig, DPTConfig
from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.pearl import PEARL, PEARLConfig
from metarl.agents.r2d2 import R2D2, R2D2Config
from metarl.agents.recurrent_sac import RecurrentSAC, RecurrentSACConfig
from metarl.agents.rl2 import RL2, RL2Config
from metarl.agents.sb3.config import PPOConfig
from metarl.agents.varibad import VariBAD, VariBADConfig
from metarl.core.agent import register_agent

__all__ = [
    "AD",
    "DPT",
    "ES",
    "ESMAML",
    "MAML",
    "R2D2",
    "PEARL",
    "RL2",
    "ADConfig",
    "BeliefConfig",
    "BeliefPPO",
    "DAgger",
    "DAggerConfig",
    "DPTConfig",
    "ESConfig",
    "ESMAMLConfig",
    "MAMLConfig",
    "PEARLConfig",
    "PPOConfig",
    "R2D2Config",
    "RL2Config",
    "RecurrentSAC",
    "RecurrentSACConfig",
    "VariBAD",
    "VariBADConfig",
]

register_agent("RL2", RL2Config)
register_agent("MAML", MAMLConfig)
register_agent("PPO", PPOConfig)
register_agent("Belief", BeliefConfig)
register_agent("RecurrentSAC", RecurrentSACConfig)
register_agent("VariBAD", VariBADConfig)
register_agent("R2D2", R2D2Config)
register_agent("ES", ESConfig)
register_agent("ESMAML", ESMAMLConfig)
register_agent("PEARL", PEARLConfig)
register_agent("DPT", DPTConfig)
register_agent("DAgger", DAggerConfig)
register_agent("AD", ADConfig)
