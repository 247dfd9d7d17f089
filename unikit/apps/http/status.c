/* SPDX-License-Identifier: MIT */
/* The status page: what this image is made of and how it fares, as HTML for people and as JSON for
 * programs. Both are written from one table. */
#include "server.h"

enum { PAGE_SIZE = 8192 };

/* Everything the page shows, side by side, so that a row can name its place by an offset. */
struct numbers {
    uint64_t uptime_ms;
    struct http_counters http;
    struct kit_alloc_stats memory;
    struct kit_sched_stats tasks;
    struct kit_net_stats network;
};

/* What the page shows, in its order: X(name, member). A name ends in its unit where it has one; one
 * that begins a group is preceded by the group's name. */
#define ROWS(X)                                                                                    \
    X("http\0uptime_ms", uptime_ms, 1)                                                             \
    X("requests", http.requests, 0)                                                                \
    X("errors", http.errors, 0)                                                                    \
    X("timeouts", http.timeouts, 0)                                                                \
    X("connections", http.connections, 0)                                                          \
    X("open", http.open, 0)                                                                        \
    X("memory\0capacity_bytes", memory.capacity, 1)                                                \
    X("used_bytes", memory.used, 0)                                                                \
    X("peak_bytes", memory.peak, 0)                                                                \
    X("blocks", memory.blocks, 0)                                                                  \
    X("allocations", memory.allocations, 0)                                                        \
    X("failures", memory.failures, 0)                                                              \
    X("tasks\0tasks", tasks.tasks, 1)                                                              \
    X("turns", tasks.turns, 0)                                                                     \
    X("switches", tasks.switches, 0)                                                               \
    X("timers", tasks.timers, 0)                                                                   \
    X("work", tasks.work, 0)                                                                       \
    X("network\0frames_in", network.frames_in, 1)                                                  \
    X("frames_out", network.frames_out, 0)                                                         \
    X("bytes_in", network.bytes_in, 0)                                                             \
    X("bytes_out", network.bytes_out, 0)                                                           \
    X("accepted", network.accepted, 0)                                                             \
    X("tcp_open", network.tcp_open, 0)                                                             \
    X("retransmits", network.retransmits, 0)                                                       \
    X("resets_in", network.resets_in, 0)                                                           \
    X("resets_out", network.resets_out, 0)                                                         \
    X("dropped_malformed", network.dropped_malformed, 0)                                           \
    X("dropped_unwanted", network.dropped_unwanted, 0)                                             \
    X("dropped_full", network.dropped_full, 0)                                                     \
    X("memory_bytes", network.memory, 0)

/* Names as one text, places as two bytes each: a table with pointers would be six times as large.
 */
#define NAME(name, member, first) name "\0"
#define PLACE(name, member, first)                                                                 \
    offsetof(struct numbers, member) | (sizeof((struct numbers *)0)->member == 8) << 1 | (first),
static const char names[] = ROWS(NAME);
static const uint16_t places[] = {ROWS(PLACE)};
enum { FIRST = 1, WIDE = 2 }; /* in the low bits of a place, which is a multiple of four */

static unsigned long long value_of(const struct numbers *numbers, uint16_t place)
{
    uint64_t wide;
    uint32_t narrow;
    const char *at = (const char *)numbers + (place & ~3u);
    memcpy(&wide, at, sizeof wide); /* no narrow member is the last: this stays inside */
    memcpy(&narrow, at, sizeof narrow);
    return place & WIDE ? wide : narrow;
}

/* Ends the name at hand. */
static const char *next(const char *name)
{
    return name + strlen(name) + 1;
}

struct page {
    char *text;
    size_t length;
};

/* `format` takes of a text and a number, in this order, as many as it needs. */
__attribute__((cold, noinline)) static void add(struct page *page, const char *format,
                                                const char *text, unsigned long long number)
{
    size_t room = PAGE_SIZE - page->length;
    size_t length = kit_format(page->text + page->length, room, format, text, number);
    page->length += length < room ? length : room - 1;
}

/* How a page is put together: what precedes the components, stands around each of them and behind
 * them; what ends a group, begins one, stands before a row; the end. */
struct style {
    const char *head, *component, *platform, *group_end, *group, *separator, *row, *end;
};

static const struct style html = {
    "<!doctype html><html lang=en><meta charset=utf-8><title>unikit status</title>"
    "<meta name=viewport content=\"width=device-width\"><style>"
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;"
    "margin:3rem auto;padding:0 1rem}h1{font-size:1.4rem}h2{font-size:1rem;margin:1.6rem 0 .3rem}"
    "table{width:100%%;border-collapse:collapse}td{padding:.2rem 0;border-top:1px solid #8884}"
    "td+td{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.9em}</style>"
    "<h1>This image</h1><p>",
    "<code>%s</code> ",
    "on %s</p>",
    "</table>",
    "<h2>%s</h2><table>",
    "",
    "<tr><td>%s<td>%llu",
    "</table><p><a href=/status.json>as JSON</a> &middot; <a href=/>home</a>\n",
};

/* Ids and names are of our own making: nothing in them needs escaping. */
static const struct style json = {
    "{\"components\":[", "\"%s\"", "],\"platform\":\"%s\",", "},", "\"%s\":{", ",",
    "\"%s\":%llu",       "}}\n",
};

static void write(struct page *page, const struct style *style, const struct numbers *numbers)
{
    const char *id, *name = names;
    add(page, style->head, "", 0);
    for (size_t i = 0; (id = kit_component_at(i)) != NULL; i++) {
        if (i != 0)
            add(page, style->separator, "", 0);
        add(page, style->component, id, 0);
    }
    add(page, style->platform, kit_platform_name(), 0);
    for (size_t i = 0; i < KIT_ARRAY_SIZE(places); i++) {
        if (places[i] & FIRST) {
            if (i != 0)
                add(page, style->group_end, "", 0);
            add(page, style->group, name, 0);
            name = next(name);
        } else {
            add(page, style->separator, "", 0);
        }
        add(page, style->row, name, value_of(numbers, places[i]));
        name = next(name);
    }
    add(page, style->end, "", 0);
}

__attribute__((cold)) char *http_status_page(bool as_json, size_t *size, size_t *length)
{
    struct numbers numbers = {.uptime_ms = kit_uptime() / KIT_NS_PER_MS, .http = http_counters};
    struct page page = {kit_memory_alloc(PAGE_SIZE, 0), 0};
    if (page.text == NULL)
        return NULL;
    kit_statistics(&numbers.memory, &numbers.tasks, &numbers.network);
    write(&page, as_json ? &json : &html, &numbers);
    *size = PAGE_SIZE;
    *length = page.length;
    return page.text;
}
