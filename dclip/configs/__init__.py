"""The stages' configs, one module a stage. None needs torch, so that the command line can show
their options at once."""
