"""Tests of everything that deploys the system: chart, manifests, compose file, images and workflows."""
