"""The API reference for browsers: a page, its script and style, and Swagger UI (swagger_ui/, which the build copies)."""
