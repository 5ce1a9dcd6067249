"""One file for each dataset: its text says where to get it, how it unpacks, and how to cite it; `DATASET` says the same
to the engine."""
