"""The app in a browser and the HTTP API: pages, requests, limits; what it opens goes through ``Systems/models.py``."""
