"""What two services need and no service owns: servers, channels, errors, databases, jobs."""
