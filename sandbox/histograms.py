"""How durations are counted, alike by pods and proxy, so that their quantiles can be compared."""

DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper bounds in seconds. Answers take milliseconds here; Traefik's default buckets begin at 100 ms."""
