"""What `make verify-deploy` holds the deployment to. Each gate is shown faults that it must see."""
