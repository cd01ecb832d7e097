"""Which tasks a list has and in which order: the filter language, from text to SQL."""
