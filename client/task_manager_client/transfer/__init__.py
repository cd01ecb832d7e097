"""Import and export: readers and writers of file formats, and what they share. It prints nothing; `cli.files` has the commands."""
