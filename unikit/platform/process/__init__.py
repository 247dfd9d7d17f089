"""What platforms have in common that start a process: an image itself, or a machine monitor."""
