"""Building blocks of agents: estimators, losses, encoders, memories, networks, trust regions."""

import metarl.fast  # noqa: F401  (registers the fast twins)
