/* SPDX-License-Identifier: MIT */
/* What the composer decided, as the runtime sees it. image/emit.py writes one composition.c that
 * defines kit_composition; everything in it is constant (but the option values a boot may change),
 * so that under link-time optimisation each choice folds into the code and what was not chosen is
 * not there.
 *
 * Which runtime files a plan compiles is said by runtime/__init__.py: main.c, app.c, options.c and
 * files.c always (what is not used is dropped by the linker), events.c only with a scheduler, net.c
 * only with a stack, thread.c only with a scheduler that claims KIT_SCHED_THREADS, blocking.c only
 * with both, preempt.c only with preemption, tls.c only with thread-local variables. A call of the
 * application that its plan does not serve is then an undefined symbol, which the composer turns
 * into words.
 */
#ifndef KIT_IMAGE_RUNTIME_COMPOSITION_H
#define KIT_IMAGE_RUNTIME_COMPOSITION_H

#include <unikit/alloc/alloc.h>
#include <unikit/app.h>
#include <unikit/net/net.h>
#include <unikit/net/netif.h>
#include <unikit/platform/console/console.h>
#include <unikit/platform/env.h>
#include <unikit/rt/types.h>
#include <unikit/sched/sched.h>

/* The kinds of component.py that reach C, by the same names. */
enum kit_option_kind {
    KIT_OPTION_INT,
    KIT_OPTION_SIZE,
    KIT_OPTION_DURATION,
    KIT_OPTION_BOOL,
    KIT_OPTION_CHOICE,
    KIT_OPTION_ADDRESS,
    KIT_OPTION_PREFIX
};

/* An option that the boot may give anew: when="boot". */
struct kit_boot_option {
    const char *name;           /* «net.mini.address», «app.http.port» */
    const char *allowed;        /* Option.allowed(): for the refusal */
    uint64_t *value;            /* its place in the options array of its owner, which is writable */
    const char *const *choices; /* KIT_OPTION_CHOICE: NULL ended; else NULL */
    uint64_t minimum;
    uint64_t maximum; /* UINT64_MAX: no bound */
    enum kit_option_kind kind;
};

/* A console component in the order of opening. */
struct kit_console_choice {
    const struct kit_console_component *component;
    const uint64_t *options;
};

/* An option of the application itself, whether or not a boot may change it. */
struct kit_app_option {
    const char *name; /* «port» for «app.http.port» */
    const uint64_t *value;
};

struct kit_composition {
    const char *name;              /* of the image: «http» */
    const char *const *components; /* every id, sorted, NULL ended: platform entries included */
    const struct kit_alloc_choice *alloc;    /* from the outside in, the layers first */
    const struct kit_sched_component *sched; /* NULL: ends when init_application has returned */
    const uint64_t *sched_options;
    const struct kit_net_component *net; /* NULL: no network */
    const uint64_t *net_options;
    /* NULL: the stack runs on the platform's device. Else on this component's end 0, and the
     * platform's device is not used. */
    const struct kit_netif_component *netif;
    const uint64_t *netif_options;
    /* Opened in this order when everything else is up; each is given the ones before it as
     * `inner`, and the last one is the image's console. Empty: the platform's own. So
     * «platform + buffer» is {platform, buffer, tee}. */
    const struct kit_console_choice *consoles;
    const struct kit_boot_option *boot_options;
    const struct kit_app_option *app_options;
    const struct kit_file *files; /* sorted by path, bytewise */
    /* The address of an image whose stack has none after open(): a prefix option value, and an
     * IPv4 address in host order; 0: none. */
    uint64_t default_address;
    uint32_t default_gateway;
    uint32_t alloc_count;
    uint32_t console_count; /* at most KIT_CONSOLE_INNER_MAX + 1 */
    uint32_t boot_option_count;
    uint32_t app_option_count;
    uint32_t file_count;
};

extern const struct kit_composition kit_composition;

#endif
