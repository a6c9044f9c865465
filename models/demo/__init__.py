"""The small checkpoint that ships with Parley, and how it was made."""
