"""Maintenance: what is scheduled, kept and erased across the mesh; so far, its own record."""
