"""The filter and the order of a list: the filter language, from text to SQL."""
