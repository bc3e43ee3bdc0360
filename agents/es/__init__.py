"""Evolution strategies: `agent.py` is ES, `maml.py` is ES-MAML, and `population.py` is their common part."""

from metarl.agents.es.agent import ES
from metarl.agents.es.config import ESConfig, ESMAMLConfig
from metarl.agents.es.maml import ESMAML

__all__ = ["ES", "ESMAML", "ESConfig", "ESMAMLConfig"]
