"""Evolution strategies: read `agent.py` for ES, `maml.py` for ES-MAML, and `population.py` for what both share."""

from metarl.agents.es.agent import ES
from metarl.agents.es.config import ESConfig, ESMAMLConfig
from metarl.agents.es.maml import ESMAML

__all__ = ["ES", "ESMAML", "ESConfig", "ESMAMLConfig"]
