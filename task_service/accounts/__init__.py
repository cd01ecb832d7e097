"""What the events of auth_service do here: the data of deleted accounts is removed."""
