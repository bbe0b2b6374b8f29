"""Training: the step that is wrapped and moved, the loop around it, the run folder it leaves."""
