/* SPDX-License-Identifier: MIT */
/* The end of the machine, at any privilege. QEMU's isa-debug-exit ends it at the store, with a
 * status of 2 * value + 1; the true code is on the report's line. Without that device the code is
 * all there is to see, and the machine resets by a triple fault, which -no-reboot makes an end. */
#include <unikit/platform/qemu/guest/pvh.h>

static void put(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        pvh_out8(kit_pvh.reports ? PVH_PORT_REPORT : PVH_PORT_SERIAL, (uint8_t)text[i]);
}

void pvh_leave(int32_t code)
{
    char text[32] = "unikit: exit ";
    size_t length = 13;
    if (code < 0)
        text[length++] = '-';
    uint32_t value = code < 0 ? 0u - (uint32_t)code : (uint32_t)code, unit = 1000000000;
    while (unit > 1 && value / unit == 0)
        unit /= 10;
    for (; unit > 0; unit /= 10)
        text[length++] = (char)('0' + value / unit % 10);
    text[length++] = '\n';
    if (kit_pvh.reports || code != 0)
        put(text, length);
    pvh_out32(PVH_PORT_EXIT, 0);
    for (;;)
        pvh_gate(PVH_GATE_END, 0, 0, 0);
}
