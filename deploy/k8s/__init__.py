"""Kubernetes: what follows from the contracts is rendered here, what an operator decides is in
the overlays.
"""
