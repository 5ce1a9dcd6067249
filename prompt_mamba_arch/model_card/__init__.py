"""A network's model card: `sets` says what is measured on which images, `evaluate` does it, `speed` takes the time,
`card` writes it all up. `scripts/model_card.py` is the command.
"""
