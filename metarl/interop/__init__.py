"""Views of families for other libraries: Gymnasium, stable-baselines3, plain loops."""

import metarl.fast  # noqa: F401  (registers the fast twins)
