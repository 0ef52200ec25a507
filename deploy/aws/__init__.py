"""AWS: what Shoptrail needs around its cluster, written with the CDK.

Runs in an environment of its own, `.cdk`, so nothing here imports the rest of the project.
"""
