"""Eyes on the mesh: alerts, their tests, and dashboards."""
