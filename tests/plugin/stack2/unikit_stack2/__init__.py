"""A two-ended stack allocator for unikit."""

from unikit_stack2.stack2 import Stack2

__all__ = ["Stack2"]
