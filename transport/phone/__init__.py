"""Phone calls: each one a session like any other, reached through somebody who speaks telephone."""
