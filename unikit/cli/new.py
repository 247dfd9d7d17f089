"""``unikit new``: write a small application of one's own, ready to build and to change."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from unikit.errors import AlreadyExists, ImageError, InvalidArgument

_IMAGE = '''"""What the image {name} is made of; see `unikit list` for what else there is."""

from unikit.apps import App
from unikit.component import Option

IMAGE = App(
    name="{name}",
    summary="counts visitors on a TCP port",
    sources=("main.c",),
    needs=("net",),
    options=(Option("port", 7000, "TCP port to listen on", minimum=1, maximum=65535, when="boot"),),
    forward=("7000:7000",),
)
'''

_MAIN = '''/* {name}: tells each visitor how many there were.
 *
 *   unikit run ./{name}            then: nc 127.0.0.1 7000
 *   unikit run ./{name} --alloc firstfit --set app.{name}.port=7001 --forward 7001:7001
 */
#include <unikit/app.h>

static unsigned visitors;

/* Whatever a visitor sends is read and forgotten; at the end of the stream we close as well. */
static void on_visitor(void *argument, struct kit_tcp *tcp, uint32_t events)
{{
    (void)argument;
    (void)events;
    char data[256];
    int got;
    while ((got = kit_tcp_receive(tcp, data, sizeof data)) > 0)
        continue;
    if (got != KIT_EAGAIN) /* end of stream, or the connection died */
        kit_tcp_close(tcp);
}}

static void on_listener(void *argument, struct kit_tcp *listener, uint32_t events)
{{
    (void)argument;
    (void)events;
    struct kit_tcp *tcp;
    while ((tcp = kit_tcp_accept(listener)) != NULL) {{
        char text[64];
        size_t length = kit_format(text, sizeof text, "you are visitor %u\\n", ++visitors);
        kit_tcp_set_callback(tcp, on_visitor, NULL);
        if (kit_tcp_send(tcp, text, length) < 0)
            kit_tcp_abort(tcp);
        else
            kit_tcp_shutdown(tcp); /* nothing more to say; on_visitor sees the visitor leave */
    }}
}}

int init_application(void)
{{
    uint64_t port = kit_app_option("port");
    struct kit_tcp *listener;
    int rc = kit_tcp_listen((uint16_t)port, on_listener, NULL, &listener);
    if (rc != KIT_OK) {{
        kit_log("{name}: cannot listen on %u: error %d", (unsigned)port, rc);
        return 1;
    }}
    kit_log("{name}: listening on %u", (unsigned)port);
    return 0;
}}
'''


def write(folder: Path) -> list[Path]:
    """Write the application into a new folder and return the files written.

    :raises InvalidArgument: the folder's name is no name for an image.
    :raises AlreadyExists: the folder is there.
    :raises ImageError: it cannot be written.
    """
    name = folder.name
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name):
        raise InvalidArgument(f"{name!r} is no name for an image: give lower case letters, digits, "
                              "- and _, a letter first")
    texts = {"image.py": _IMAGE.format(name=name), "main.c": _MAIN.format(name=name)}
    try:
        folder.mkdir()
        for file, text in texts.items():
            (folder / file).write_text(text)
    except FileExistsError:
        raise AlreadyExists(f"{folder} exists; choose another name or remove it") from None
    except OSError as error:
        raise ImageError(f"cannot write {folder}: {error.strerror}") from error
    return [folder / file for file in texts]


def do_new(choice: argparse.Namespace) -> int:
    """Write an application and say what to do with it."""
    folder = Path(choice.name)
    for path in write(folder):
        print(path)
    shown = folder if folder.is_absolute() else f"./{folder}"
    print(f"now: unikit run {shown}, then: nc 127.0.0.1 7000")
    return 0
