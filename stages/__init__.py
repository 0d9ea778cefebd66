"""The customisations, one module each."""
