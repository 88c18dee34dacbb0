"""A learning scheduler for trading systems: closed trades in, few and honest multipliers out."""
