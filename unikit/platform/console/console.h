/* SPDX-License-Identifier: MIT */
/* Console components: what an image opens is the console_interface_t of the environment, so a
 * component may stand in front of the platform's own console or replace it.
 *
 * write() with length 0 asks a console that holds text back to try again; the image's main loop
 * calls it so before each sleep and before the end. It is valid on every console (data may be
 * NULL) and returns 0. */
#ifndef KIT_PLATFORM_CONSOLE_CONSOLE_H
#define KIT_PLATFORM_CONSOLE_CONSOLE_H

#include <unikit/alloc/alloc.h>
#include <unikit/net/net.h>
#include <unikit/platform/env.h>

/* With -DKIT_CONSOLE_DIRECT (the image has no console component) calls go straight to the image's
 * platform, as those of the environment do. */
#ifdef KIT_CONSOLE_DIRECT
#define KIT_CONSOLE_CALL(console, name) kit_image_console_##name
#define KIT_CONSOLE_SET(console, name, function) ((void)0)
#else
#define KIT_CONSOLE_CALL(console, name) ((console)->name)
#define KIT_CONSOLE_SET(console, name, function) ((void)((console)->name = (function)))
#endif

/* cdef: begin */
enum { KIT_CONSOLE_ABI = 1, KIT_CONSOLE_INNER_MAX = 4 };

/* What a console may build on; parts that the image does not have are NULL. */
struct kit_console_parts {
    runtime_environment_t *env;
    struct kit_alloc *alloc;
    struct kit_net *net;
    console_interface_t *inner[KIT_CONSOLE_INNER_MAX]; /* tee: where to write */
    uint32_t inner_count;
};

struct kit_console_component {
    const char *id;
    uint32_t abi;
    uint32_t features;
    /* 0 and *out; KIT_EINVAL, KIT_ENOMEM, KIT_ENOTSUP (a part it needs is missing). */
    int (*open)(const uint64_t *options, const struct kit_console_parts *parts,
                console_interface_t **out);
};

KIT_INLINE size_t kit_console_write(console_interface_t *console, const char *data, size_t length)
{
    return KIT_CONSOLE_CALL(console, write)(console, data, length);
}

KIT_INLINE size_t kit_console_input(console_interface_t *console, char *buffer, size_t max_length)
{
    return KIT_CONSOLE_CALL(console, read)(console, buffer, max_length);
}
/* cdef: end */

#endif
