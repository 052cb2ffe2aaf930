"""Training of Lookback policies: perception, SFT on oracle traces, export to a bundle."""
