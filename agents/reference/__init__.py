"""Reference agents, classical, scripted or exact, to compare learned agents with."""
