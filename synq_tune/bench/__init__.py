"""What the measuring scripts run."""
