"""A web server: HTTP/1.1 over a folder that is packed into the image."""

from unikit.apps import App
from unikit.component import Option

IMAGE = App(
    name="http",
    summary="an HTTP/1.1 server for a packed folder, with /status and /status.json",
    sources=("main.c", "request.c", "condition.c", "response.c", "status.c"),
    needs=("net",),
    files="site",
    options=(
        Option("port", 80, "TCP port to listen on", minimum=1, maximum=65535, when="boot"),
        Option("idle", "30s", "how long a connection may wait for its next request",
               kind="duration", minimum=10**9, maximum=3600 * 10**9, when="boot"),
        Option("patience", "10s", "how long a request may take to arrive",
               kind="duration", minimum=10**9, maximum=3600 * 10**9, when="boot"),
    ),
    forward=("8080:80",),
    flags=("-Os",),  # 2 % of a request's processor time is spent here
)
