"""The balloon device served to a real kernel over a UNIX socket (vhost-user)."""
