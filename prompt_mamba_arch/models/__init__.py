"""Models in BasicSR's sense: what trains, validates and saves a network. `*_model.py` register with BasicSR."""
