"""The Envoy gateway: renders its configuration from one template for every environment. No Python of this package handles requests."""
