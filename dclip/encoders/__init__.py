"""Text encoders: what makes of a prompt the condition of a network. One row a kind."""
