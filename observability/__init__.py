"""What operators see: events, logs, the audit trail, metrics. Decides nothing."""
