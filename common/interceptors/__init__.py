"""What happens around every RPC."""
