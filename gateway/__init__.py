"""The Envoy gateway: its configuration, rendered from one template for every environment."""
