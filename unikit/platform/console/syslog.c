/* SPDX-License-Identifier: MIT */
/* Sends each line as one syslog message over UDP (RFC 5424, RFC 5426):
 *
 *     <134>1 2026-11-21T02:15:30.123456Z 10.0.0.2 unikit - - - text of the line
 *
 * Lines are gathered until their newline; one longer than LINE_SIZE is cut in pieces. What the
 * network does not take (no neighbour yet, queue full) waits in a backlog of bounded size and is
 * tried again with every line and before every sleep; lines that do not fit there are counted, and
 * the count is sent when the network takes text again. Nothing here blocks, and a line that was
 * sent may still be lost, as UDP is.
 *
 * Backlog: records of {time, length, text} one behind the other, oldest first; taking out moves the
 * rest, which is short. Space: LINE_SIZE + the backlog option. */
#include <unikit/platform/console/console.h>
#include <unikit/rt/date.h>

enum { OPTION_SERVER, OPTION_PORT, OPTION_FACILITY, OPTION_SEVERITY, OPTION_BACKLOG };
enum { LINE_SIZE = 480, HEAD_SIZE = 96, NUMBER_SIZE = 20 };

struct record {
    uint64_t wall_ns;
    size_t length;
};

struct syslog {
    console_interface_t console;
    runtime_environment_t *env;
    struct kit_net *net;
    struct kit_udp *udp;
    struct kit_address server;
    unsigned priority; /* facility * 8 + severity */
    uint64_t lost;     /* lines */
    char *backlog;
    size_t backlog_size;
    size_t backlog_used;
    size_t line_length;
    char line[LINE_SIZE];
};

static char *put(char *at, const char *text)
{
    while (*text != '\0')
        *at++ = *text++;
    return at;
}

static char *put_number(char *at, uint64_t value)
{
    char digits[NUMBER_SIZE];
    size_t count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    while (count != 0)
        *at++ = digits[--count];
    return at;
}

/* RFC 5424, section 6.2.3; the nil value where the platform has no clock. */
static char *put_time(char *at, uint64_t wall_ns)
{
    if (wall_ns == 0)
        return put(at, "-");
    struct kit_date date = kit_date_of(wall_ns / KIT_NS_PER_S);
    memcpy(at, "0000-00-00T00:00:00.000000Z", 27);
    kit_date_digits(at, 4, date.year);
    kit_date_digits(at + 5, 2, date.month);
    kit_date_digits(at + 8, 2, date.day);
    kit_date_digits(at + 11, 2, date.hour);
    kit_date_digits(at + 14, 2, date.minute);
    kit_date_digits(at + 17, 2, date.second);
    kit_date_digits(at + 20, 6, wall_ns / KIT_NS_PER_US);
    return at + 27;
}

/* The image has no name of its own: its address, as section 6.2.4 prefers to the nil value. */
static char *put_host(char *at, const struct kit_net *net)
{
    struct kit_address own;
    if (kit_net_address(net, 4, &own) != 0)
        return put(at, "-");
    for (unsigned i = 0; i < 4; i++) {
        if (i != 0)
            *at++ = '.';
        at = put_number(at, own.bytes[i]);
    }
    return at;
}

/* Sends one line now. 0, or why the network does not take it. */
static int syslog_send(struct syslog *s, uint64_t wall_ns, const char *text, size_t length)
{
    char message[HEAD_SIZE + LINE_SIZE], *at = message;
    *at++ = '<';
    at = put_number(at, s->priority);
    at = put(at, ">1 ");
    at = put_time(at, wall_ns);
    *at++ = ' ';
    at = put_host(at, s->net);
    at = put(at, " unikit - - - ");
    memcpy(at, text, length);
    at += length;
    return kit_net_udp_send(s->udp, &s->server, message, (size_t)(at - message));
}

/* Sends what waits, oldest first. Whether nothing waits any more. */
static bool syslog_flush(struct syslog *s)
{
    while (s->backlog_used != 0) {
        struct record record;
        memcpy(&record, s->backlog, sizeof record);
        const char *text = s->backlog + sizeof record;
        if (syslog_send(s, record.wall_ns, text, record.length) != 0)
            return false;
        size_t whole = sizeof record + record.length;
        s->backlog_used -= whole;
        memmove(s->backlog, s->backlog + whole, s->backlog_used);
    }
    if (s->lost != 0) {
        char text[NUMBER_SIZE + 16], *at = put_number(text, s->lost);
        at = put(at, " lines lost");
        if (syslog_send(s, kit_env_wall_ns(s->env), text, (size_t)(at - text)) != 0)
            return false;
        s->lost = 0;
    }
    return true;
}

static void syslog_end_line(struct syslog *s)
{
    struct record record = {kit_env_wall_ns(s->env), s->line_length};
    if (s->line_length == 0)
        return;
    s->line_length = 0;
    if (syslog_flush(s) && syslog_send(s, record.wall_ns, s->line, record.length) == 0)
        return;
    /* Once a line is lost, later ones are too until all has been sent: no hidden gaps. */
    if (s->lost != 0 || s->backlog_size - s->backlog_used < sizeof record + record.length) {
        s->lost++;
        return;
    }
    memcpy(s->backlog + s->backlog_used, &record, sizeof record);
    memcpy(s->backlog + s->backlog_used + sizeof record, s->line, record.length);
    s->backlog_used += sizeof record + record.length;
}

static size_t syslog_write(console_interface_t *console, const char *data, size_t length)
{
    struct syslog *s = KIT_CONTAINER_OF(console, struct syslog, console);
    if (length == 0)
        syslog_flush(s);
    for (size_t i = 0; i < length; i++) {
        if (data[i] == '\n' || s->line_length == LINE_SIZE)
            syslog_end_line(s);
        if (data[i] != '\n' && data[i] != '\r')
            s->line[s->line_length++] = data[i];
    }
    return length;
}

static size_t syslog_read(console_interface_t *console, char *buffer, size_t max_length)
{
    (void)console;
    (void)buffer;
    (void)max_length;
    return 0;
}

/* Nobody answers a syslog message; whoever sends to our port anyway is not listened to. */
static void syslog_ignore(void *argument, struct kit_udp *udp)
{
    char byte;
    struct kit_address from;
    (void)argument;
    while (kit_net_udp_receive(udp, &from, &byte, 1) >= 0)
        continue;
}

static int syslog_open(const uint64_t *options, const struct kit_console_parts *parts,
                       console_interface_t **out)
{
    uint64_t server = options[OPTION_SERVER], port = options[OPTION_PORT];
    uint64_t facility = options[OPTION_FACILITY], severity = options[OPTION_SEVERITY];
    if (parts->net == NULL)
        return KIT_ENOTSUP;
    if (server == 0 || server > UINT32_MAX || port == 0 || port > UINT16_MAX || facility > 23 ||
        severity > 7)
        return KIT_EINVAL;
    struct syslog *s = kit_alloc_alloc(parts->alloc, sizeof *s, alignof(struct syslog));
    if (s == NULL)
        return KIT_ENOMEM;
    *s = (struct syslog){.console = {.write = syslog_write, .read = syslog_read},
                         .env = parts->env,
                         .net = parts->net,
                         .server = {.family = 4, .port = (uint16_t)port},
                         .priority = (unsigned)(facility * 8 + severity),
                         .backlog_size = (size_t)options[OPTION_BACKLOG]};
    for (unsigned i = 0; i < 4; i++)
        s->server.bytes[i] = (uint8_t)(server >> (24 - 8 * i));
    int rc = KIT_ENOMEM;
    s->backlog = kit_alloc_alloc(parts->alloc, s->backlog_size, 0);
    if (s->backlog != NULL)
        rc = kit_net_udp_open(parts->net, 0, syslog_ignore, NULL, &s->udp);
    if (rc == 0) {
        *out = &s->console;
        return 0;
    }
    if (s->backlog != NULL)
        kit_alloc_free(parts->alloc, s->backlog, s->backlog_size, 0);
    kit_alloc_free(parts->alloc, s, sizeof *s, alignof(struct syslog));
    return rc;
}

const struct kit_console_component kit_console_syslog = {
    .id = "console.syslog", .abi = KIT_CONSOLE_ABI, .open = syslog_open};
