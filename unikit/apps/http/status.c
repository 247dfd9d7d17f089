/* SPDX-License-Identifier: MIT */
/* The status page: what this image is made of and how it fares, as HTML for people and as JSON for
 * programs. Both are written from one table. */
#include "server.h"

enum { PAGE_SIZE = 8192 };

struct row {
    const char *group;
    const char *name; /* ends in its unit where it has one */
    uint64_t value;
};

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

__attribute__((cold)) static void write_html(struct page *page, const struct row *rows,
                                             size_t count)
{
    const char *group = "", *id;
    add(page, "%s", html_head);
    for (size_t i = 0; (id = kit_component_at(i)) != NULL; i++)
        add(page, "<code>%s</code> ", id);
    add(page, "on %s</p>", kit_platform_name());
    for (size_t i = 0; i < count; i++) {
        if (rows[i].group != group)
            add(page, "%s<h2>%s</h2><table>", i == 0 ? "" : "</table>", rows[i].group);
        group = rows[i].group;
        add(page, "<tr><td>%s<td>%llu", rows[i].name, (unsigned long long)rows[i].value);
    }
    add(page, "</table><p><a href=\"/status.json\">as JSON</a> &middot; <a href=\"/\">home</a>\n");
}

/* Ids and names are of our own making: nothing in them needs escaping. */
__attribute__((cold)) static void write_json(struct page *page, const struct row *rows,
                                             size_t count)
{
    const char *group = NULL, *id;
    add(page, "{\"platform\":\"%s\",\"components\":[", kit_platform_name());
    for (size_t i = 0; (id = kit_component_at(i)) != NULL; i++)
        add(page, "%s\"%s\"", i == 0 ? "" : ",", id);
    add(page, "]");
    for (size_t i = 0; i < count; i++) {
        if (rows[i].group != group)
            add(page, "%s,\"%s\":{", i == 0 ? "" : "}", rows[i].group);
        add(page, "%s\"%s\":%llu", rows[i].group != group ? "" : ",", rows[i].name,
            (unsigned long long)rows[i].value);
        group = rows[i].group;
    }
    add(page, "}}\n");
}

__attribute__((cold)) char *http_status_page(bool json, size_t *size, size_t *length)
{
    static const char http[] = "http", memory[] = "memory", tasks[] = "tasks", net[] = "network";
    struct kit_alloc_stats m;
    struct kit_sched_stats t;
    struct kit_net_stats n;
    char *text = kit_memory_alloc(PAGE_SIZE, 0);
    if (text == NULL)
        return NULL;
    kit_statistics(&m, &t, &n);
    const struct row rows[] = {
        {http, "uptime_ms", kit_uptime() / KIT_NS_PER_MS},
        {http, "requests", http_counters.requests},
        {http, "errors", http_counters.errors},
        {http, "timeouts", http_counters.timeouts},
        {http, "connections", http_counters.connections},
        {http, "open", http_counters.open},
        {memory, "capacity_bytes", m.capacity},
        {memory, "used_bytes", m.used},
        {memory, "peak_bytes", m.peak},
        {memory, "blocks", m.blocks},
        {memory, "allocations", m.allocations},
        {memory, "failures", m.failures},
        {tasks, "tasks", t.tasks},
        {tasks, "turns", t.turns},
        {tasks, "switches", t.switches},
        {tasks, "timers", t.timers},
        {tasks, "work", t.work},
        {net, "frames_in", n.frames_in},
        {net, "frames_out", n.frames_out},
        {net, "bytes_in", n.bytes_in},
        {net, "bytes_out", n.bytes_out},
        {net, "accepted", n.accepted},
        {net, "tcp_open", n.tcp_open},
        {net, "retransmits", n.retransmits},
        {net, "resets_in", n.resets_in},
        {net, "resets_out", n.resets_out},
        {net, "dropped_malformed", n.dropped_malformed},
        {net, "dropped_unwanted", n.dropped_unwanted},
        {net, "dropped_full", n.dropped_full},
        {net, "memory_bytes", n.memory},
    };
    struct page page = {text, 0};
    if (json)
        write_json(&page, rows, KIT_ARRAY_SIZE(rows));
    else
        write_html(&page, rows, KIT_ARRAY_SIZE(rows));
    *size = PAGE_SIZE;
    *length = page.length;
    return text;
}
