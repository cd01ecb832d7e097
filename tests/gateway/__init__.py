"""Tests of the gateway on a real Envoy."""
