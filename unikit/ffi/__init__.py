"""How C becomes Python, for unikit's own components and for third-party packages alike."""
