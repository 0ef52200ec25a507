"""Everything that runs the mesh somewhere: on a laptop, in containers, in a cloud."""
