"""A real Linux kernel as the guest: User-mode Linux needs neither root nor virtualization."""
