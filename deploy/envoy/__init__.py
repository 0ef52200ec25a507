"""Renders Envoy's configuration: one static file for each proxy, and no control plane."""
