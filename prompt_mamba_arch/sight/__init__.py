"""Which kinds of degradation are in a photograph."""

from prompt_mamba_arch.sight.look import load_network, see, what_is_wrong
from prompt_mamba_arch.sight.network import SightNetwork, views

__all__ = ["SightNetwork", "load_network", "see", "views", "what_is_wrong"]
