"""What the platform's services have in common: errors, settings, logs, metrics, security."""
