/* SPDX-License-Identifier: MIT */
/* Runs the suite of interfaces in memory on the one that the image was composed with. */
#include <unikit/testing/suite_netif.h>

#include "suite_image.h"

int init_application(void)
{
    struct kit_report report = {.fail = suite_fail};
    const struct kit_netif_component *component = kit_composition.netif;
    size_t size = component->memory_size(suite_options) + 4096;
    void *memory = kit_memory_alloc(size, 64);
    if (memory == NULL)
        suite_end(&report, KIT_ENOMEM);
    suite_end(&report, kit_suite_netif(component, suite_options, memory, size, &report));
}
