"""The Envoy gateway: its configuration, rendered from one template for every environment. Nothing here runs while requests are served."""
