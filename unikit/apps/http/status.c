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

struct row {
    const char *name; /* ends in its unit where it has one */
    uint16_t offset;
    uint8_t size; /* of the number, bytes: 4 or 8 */
    uint8_t group;
};

static const char *const groups[] = {"http", "memory", "tasks", "network"};

#define ROW(group, name, member)                                                                   \
    {                                                                                              \
        name, offsetof(struct numbers, member), sizeof((struct numbers *)0)->member, group         \
    }

static const struct row rows[] = {
    ROW(0, "uptime_ms", uptime_ms),
    ROW(0, "requests", http.requests),
    ROW(0, "errors", http.errors),
    ROW(0, "timeouts", http.timeouts),
    ROW(0, "connections", http.connections),
    ROW(0, "open", http.open),
    ROW(1, "capacity_bytes", memory.capacity),
    ROW(1, "used_bytes", memory.used),
    ROW(1, "peak_bytes", memory.peak),
    ROW(1, "blocks", memory.blocks),
    ROW(1, "allocations", memory.allocations),
    ROW(1, "failures", memory.failures),
    ROW(2, "tasks", tasks.tasks),
    ROW(2, "turns", tasks.turns),
    ROW(2, "switches", tasks.switches),
    ROW(2, "timers", tasks.timers),
    ROW(2, "work", tasks.work),
    ROW(3, "frames_in", network.frames_in),
    ROW(3, "frames_out", network.frames_out),
    ROW(3, "bytes_in", network.bytes_in),
    ROW(3, "bytes_out", network.bytes_out),
    ROW(3, "accepted", network.accepted),
    ROW(3, "tcp_open", network.tcp_open),
    ROW(3, "retransmits", network.retransmits),
    ROW(3, "resets_in", network.resets_in),
    ROW(3, "resets_out", network.resets_out),
    ROW(3, "dropped_malformed", network.dropped_malformed),
    ROW(3, "dropped_unwanted", network.dropped_unwanted),
    ROW(3, "dropped_full", network.dropped_full),
    ROW(3, "memory_bytes", network.memory),
};

static unsigned long long value_of(const struct numbers *numbers, const struct row *row)
{
    uint64_t wide;
    uint32_t narrow;
    const char *at = (const char *)numbers + row->offset;
    memcpy(&wide, at, sizeof wide); /* no narrow member is the last: this stays inside */
    memcpy(&narrow, at, sizeof narrow);
    return row->size == sizeof wide ? wide : narrow;
}

struct page {
    char *text;
    size_t length;
};

__attribute__((cold, noinline, format(printf, 2, 3))) static void add(struct page *page,
                                                                      const char *format, ...)
{
    va_list arguments;
    size_t room = PAGE_SIZE - page->length;
    va_start(arguments, format);
    size_t length = kit_vformat(page->text + page->length, room, format, arguments);
    va_end(arguments);
    page->length += length < room ? length : room - 1;
}

static const char html_head[] =
    "<!doctype html><html lang=en><meta charset=utf-8><title>unikit status</title>"
    "<meta name=viewport content=\"width=device-width\"><style>"
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;"
    "margin:3rem auto;padding:0 1rem}h1{font-size:1.4rem}h2{font-size:1rem;margin:1.6rem 0 .3rem}"
    "table{width:100%;border-collapse:collapse}td{padding:.2rem 0;border-top:1px solid #8884}"
    "td+td{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.9em}</style>"
    "<h1>This image</h1><p>";

__attribute__((cold)) static void write_html(struct page *page, const struct numbers *numbers)
{
    const char *id;
    add(page, "%s", html_head);
    for (size_t i = 0; (id = kit_component_at(i)) != NULL; i++)
        add(page, "<code>%s</code> ", id);
    add(page, "on %s</p>", kit_platform_name());
    for (size_t i = 0; i < KIT_ARRAY_SIZE(rows); i++) {
        if (i == 0 || rows[i].group != rows[i - 1].group)
            add(page, "%s<h2>%s</h2><table>", i == 0 ? "" : "</table>", groups[rows[i].group]);
        add(page, "<tr><td>%s<td>%llu", rows[i].name, value_of(numbers, &rows[i]));
    }
    add(page, "</table><p><a href=\"/status.json\">as JSON</a> &middot; <a href=\"/\">home</a>\n");
}

/* Ids and names are of our own making: nothing in them needs escaping. */
__attribute__((cold)) static void write_json(struct page *page, const struct numbers *numbers)
{
    const char *id;
    add(page, "{\"platform\":\"%s\",\"components\":[", kit_platform_name());
    for (size_t i = 0; (id = kit_component_at(i)) != NULL; i++)
        add(page, "%s\"%s\"", i == 0 ? "" : ",", id);
    add(page, "]");
    for (size_t i = 0; i < KIT_ARRAY_SIZE(rows); i++) {
        bool first = i == 0 || rows[i].group != rows[i - 1].group;
        if (first)
            add(page, "%s,\"%s\":{", i == 0 ? "" : "}", groups[rows[i].group]);
        add(page, "%s\"%s\":%llu", first ? "" : ",", rows[i].name, value_of(numbers, &rows[i]));
    }
    add(page, "}}\n");
}

__attribute__((cold)) char *http_status_page(bool json, size_t *size, size_t *length)
{
    struct numbers numbers = {.uptime_ms = kit_uptime() / KIT_NS_PER_MS, .http = http_counters};
    struct page page = {kit_memory_alloc(PAGE_SIZE, 0), 0};
    if (page.text == NULL)
        return NULL;
    kit_statistics(&numbers.memory, &numbers.tasks, &numbers.network);
    (json ? write_json : write_html)(&page, &numbers);
    *size = PAGE_SIZE;
    *length = page.length;
    return page.text;
}
