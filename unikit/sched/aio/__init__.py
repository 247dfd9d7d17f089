"""The C side of :mod:`unikit.aio`: ready callbacks and tasks of asyncio on a unikit scheduler."""
