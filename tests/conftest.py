"""What all tests need."""

import signal

# A shell starts background jobs with SIGINT ignored, and programs inherit that; tests send SIGINT to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)
