"""Omni models as three stages: thinker, talker, codec. torch lives here and nowhere else."""
