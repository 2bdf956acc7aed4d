"""QuPath's own classes, used in a separate Java process. Nothing else imports paquo."""
