"""QuPath's own classes, in a process of their own. Nothing else imports paquo."""
