/* SPDX-License-Identifier: MIT */
/* The command line: words «name=value» up to «--», behind which stands the application's own
 * argument string. A name without «=» has the value «». Words that name devices are taken out. */
#include <unikit/platform/qemu/guest/pvh.h>

static const char device_name[] = "virtio_mmio.device=";

static PVH_RING0 bool put(char byte)
{
    if (kit_pvh.options_bytes == PVH_OPTIONS_BYTES)
        return false;
    kit_pvh.options[kit_pvh.options_bytes++] = byte;
    return true;
}

/* A number, decimal or with 0x, and a unit; moves *text behind it. */
static PVH_RING0 uint64_t number(const char **text)
{
    const char *at = *text;
    uint64_t value = 0;
    unsigned base = 10;
    if (at[0] == '0' && at[1] == 'x') {
        base = 16;
        at += 2;
    }
    for (;; at++) {
        unsigned digit = (unsigned)*at - '0';
        if (digit > 9)
            digit = base == 16 && (*at | 32) >= 'a' && (*at | 32) <= 'f'
                        ? (unsigned)(*at | 32) - 'a' + 10
                        : base;
        if (digit >= base)
            break;
        value = value * base + digit;
    }
    if (*at == 'K' || *at == 'k')
        value <<= 10, at++;
    else if (*at == 'M' || *at == 'm')
        value <<= 20, at++;
    *text = at;
    return value;
}

/* SIZE@BASE:IRQ (Linux, Documentation/admin-guide/kernel-parameters.txt). */
static PVH_RING0 void add_device(const char *text)
{
    struct pvh_device device = {.size = (uint32_t)number(&text)};
    if (*text++ != '@')
        pvh_refuse("virtio_mmio.device: SIZE@BASE:IRQ is wanted");
    device.base = number(&text);
    if (*text++ != ':')
        pvh_refuse("virtio_mmio.device: SIZE@BASE:IRQ is wanted");
    device.interrupt = (uint32_t)number(&text);
    if (device.size < 0x200 || device.base < (uint64_t)kit_image_end ||
        device.base >= (UINT64_C(1) << 32) - device.size || device.interrupt > 119)
        pvh_refuse("virtio_mmio.device: out of range");
    if (kit_pvh.device_count < PVH_DEVICES_MAX)
        kit_pvh.devices[kit_pvh.device_count++] = device;
}

static PVH_RING0 bool starts(const char *text, const char *with)
{
    while (*with != 0 && *text == *with)
        text++, with++;
    return *with == 0;
}

/* One word as name NUL value NUL; where it ends. */
static PVH_RING0 const char *add_option(const char *word)
{
    bool named = false, fits = true;
    for (; *word != 0 && *word != ' '; word++) {
        bool ends_name = *word == '=' && !named;
        named |= ends_name;
        fits = put(ends_name ? 0 : *word) && fits;
    }
    if (!named)
        fits = put(0) && fits;
    if (!put(0) || !fits)
        pvh_refuse("the command line is too long");
    return word;
}

/* The application's string, up to devices, which monitors put at the very end; where it ends. */
static PVH_RING0 const char *add_argument(const char *text)
{
    bool fits = put(0);
    uint32_t start = kit_pvh.options_bytes;
    while (*text != 0 && !starts(text, device_name))
        fits = put(*text++) && fits;
    if (*text != 0 && kit_pvh.options_bytes > start)
        kit_pvh.options_bytes--; /* the space before them */
    if (!put(0) || !fits)
        pvh_refuse("the command line is too long");
    return text;
}

void pvh_read_options(const char *line)
{
    while (*line != 0) {
        if (*line == ' ') {
            line++;
        } else if (starts(line, "-- ") || (starts(line, "--") && line[2] == 0)) {
            line += 2;
            line += *line == ' ';
            line = add_argument(line);
        } else if (starts(line, device_name)) {
            add_device(line + sizeof device_name - 1);
            while (*line != 0 && *line != ' ')
                line++;
        } else {
            line = add_option(line);
        }
    }
}

PVH_COLD const char *kit_pvh_boot_option(runtime_environment_t *env, const char *name)
{
    (void)env;
    const char *at = kit_pvh.options, *end = at + kit_pvh.options_bytes, *found = NULL;
    while (at < end) {
        const char *value = at + strlen(at) + 1;
        if (strlen(name) == strlen(at) && memcmp(at, name, strlen(at)) == 0)
            found = value; /* the last one of a name wins */
        at = value + strlen(value) + 1;
    }
    return found;
}
