/* SPDX-License-Identifier: MIT */
/* Keeps the last bytes written in a ring in memory, where they can be read from outside: after a
 * crash, from a memory dump, from a running guest. The reader knows no address; it searches for the
 * magic at the start of the header:
 *
 *     0        16     24        32      40                64
 *     | magic  | size | written | check | zero ...        | ring, `size` bytes |
 *
 * All words are little endian. `written` counts every byte ever written, so the ring's next place
 * is written % size. `check` is a function of magic and size that no other 40 bytes are likely to
 * fulfil; neither it nor the magic stands in the code as it stands in memory. Bytes are stored
 * before they are counted: a reader that comes in between misses the newest, and sees nothing
 * wrong. A write costs one or two copies, or one store of the last `size` bytes. */
#include <unikit/platform/console/console.h>
#include <unikit/rt/x86_64/cpu.h>

enum { OPTION_SIZE, HEADER_SIZE = 64 };

/* Stored complemented, and turned where the compiler cannot do it beforehand: an image's code and
 * constants shall not contain it. */
static const uint64_t not_magic[2] = {~UINT64_C(0x6e6f632d74696b75), ~UINT64_C(0x317265666675622d)};

struct header {
    uint64_t magic[2];
    uint64_t size;
    uint64_t written;
    uint64_t check;
};

struct buffer {
    console_interface_t console;
    volatile struct header *header;
    char *ring;
};

static size_t buffer_write(console_interface_t *console, const char *data, size_t length)
{
    struct buffer *buffer = KIT_CONTAINER_OF(console, struct buffer, console);
    uint64_t size = buffer->header->size, written = buffer->header->written;
    size_t skipped = length > size ? length - (size_t)size : 0;
    size_t left = length - skipped;
    size_t place = (size_t)((written + skipped) % size);
    size_t first = left < size - place ? left : (size_t)(size - place);
    if (length == 0)
        return 0;
    memcpy(buffer->ring + place, data + skipped, first);
    memcpy(buffer->ring, data + skipped + first, left - first);
    atomic_signal_fence(memory_order_release);
    buffer->header->written = written + length;
    return length;
}

static size_t buffer_read(console_interface_t *console, char *data, size_t max_length)
{
    (void)console;
    (void)data;
    (void)max_length;
    return 0;
}

static int buffer_open(const uint64_t *options, const struct kit_console_parts *parts,
                       console_interface_t **out)
{
    uint64_t size = options[OPTION_SIZE];
    if (size < 256 || size > UINT64_C(1) << 30)
        return KIT_EINVAL;
    struct buffer *buffer = kit_alloc_alloc(parts->alloc, sizeof *buffer, alignof(struct buffer));
    if (buffer == NULL)
        return KIT_ENOMEM;
    char *memory = kit_alloc_alloc(parts->alloc, HEADER_SIZE + (size_t)size, HEADER_SIZE);
    if (memory == NULL) {
        kit_alloc_free(parts->alloc, buffer, sizeof *buffer, alignof(struct buffer));
        return KIT_ENOMEM;
    }
    memset(memory, 0, HEADER_SIZE);
    volatile struct header *header = (volatile struct header *)(void *)memory;
    *buffer = (struct buffer){.console = {.write = buffer_write, .read = buffer_read},
                              .header = header,
                              .ring = memory + HEADER_SIZE};
    header->size = size;
    header->check = ~(size * UINT64_C(0x9e3779b97f4a7c15));
    for (unsigned i = 0; i < 2; i++) {
        header->magic[i] = ~(uint64_t)kit_cpu_opaque(not_magic[i]);
        header->check ^= header->magic[i];
    }
    *out = &buffer->console;
    return 0;
}

const struct kit_console_component kit_console_buffer = {
    .id = "console.buffer", .abi = KIT_CONSOLE_ABI, .open = buffer_open};
