"""When tasks are due: dates, time zones and recurrence. Pure functions, without storage and wire format."""
