"""Handles the events of auth_service: deletes the data of deleted accounts."""
