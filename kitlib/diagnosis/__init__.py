"""Rules over what was recorded: how nodes became Ready, and what the network costs."""
