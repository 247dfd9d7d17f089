/* SPDX-License-Identifier: MIT */
/* Process-wide panic state: one guard list and one message per thread. */
#include <string.h>

#include <unikit/ffi/hooks/abi.h>

static _Thread_local struct kit_guard *innermost;
static _Thread_local char message[256];
static _Thread_local int pending;

static struct kit_guard **abi_guards(void)
{
    return &innermost;
}

static void abi_panic(const char *text)
{
    strncpy(message, text, sizeof message - 1);
    pending = 1;
    if (innermost)
        longjmp(innermost->target, 1);
}

static const struct kit_host_hooks table = {abi_panic, abi_guards};

KIT_HIDDEN const struct kit_host_hooks *kit_abi_hooks(void)
{
    kit_host_bind(&table); /* this extension's own guards must be on the same list */
    return &table;
}

KIT_HIDDEN const char *kit_abi_take_panic(void)
{
    if (!pending)
        return NULL;
    pending = 0;
    return message;
}
