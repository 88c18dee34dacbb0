"""Where closed trades come from. A source reads; it never writes to the learning tables."""
