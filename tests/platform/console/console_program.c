/* SPDX-License-Identifier: MIT */
/* Every console component in one hosted program with sanitizers, over the virtual environment, a
 * counting allocator and a network that only records datagrams. First the conformance suite; then
 * what each console promises beyond it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/testing/suite_console.h>
#include <unikit/testing/virtual.h>

extern const struct kit_console_component kit_console_platform, kit_console_null, kit_console_tee,
    kit_console_buffer, kit_console_syslog;

/* Consoles are never closed: what they hold at the end is no leak. */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

_Noreturn void kit_panic(const char *message)
{
    fprintf(stderr, "panic: %s\n", message);
    abort();
}

/* ---- an allocator over malloc ------------------------------------------------------------------
 */

static void *heap_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    void *block = NULL;
    (void)a;
    return posix_memalign(&block, align < 16 ? 16 : align, size ? size : 1) ? NULL : block;
}

static void heap_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a, (void)size, (void)align;
    free(block);
}

static const struct kit_alloc_ops heap_ops = {.alloc = heap_alloc, .free = heap_free};
static struct kit_alloc heap = {&heap_ops};

/* ---- a network that records ---------------------------------------------------------------------
 */

enum { DATAGRAMS = 4096 };

struct recorder {
    struct kit_net net;
    struct kit_udp udp;
    int result;  /* of the next sends */
    int address; /* of kit_net_address */
    size_t count;
    struct {
        struct kit_address to;
        size_t length;
        char text[700];
    } sent[DATAGRAMS];
};

static int record_open(struct kit_net *net, uint16_t port, kit_udp_callback callback,
                       void *argument, struct kit_udp **out)
{
    struct recorder *r = KIT_CONTAINER_OF(net, struct recorder, net);
    (void)port, (void)callback, (void)argument;
    r->udp.net = net;
    *out = &r->udp;
    return 0;
}

static int record_send(struct kit_udp *udp, const struct kit_address *to, const void *data,
                       size_t length)
{
    struct recorder *r = KIT_CONTAINER_OF(udp, struct recorder, udp);
    if (r->result != 0 || r->count == DATAGRAMS)
        return r->result;
    r->sent[r->count].to = *to;
    r->sent[r->count].length = length;
    memcpy(r->sent[r->count].text, data, length);
    r->sent[r->count++].text[length] = '\0';
    return 0;
}

static int record_address(const struct kit_net *net, uint8_t family, struct kit_address *out)
{
    (void)family;
    *out = (struct kit_address){.bytes = {10, 1, 20, 255}, .family = 4};
    return ((const struct recorder *)net)->address;
}

static const struct kit_net_ops record_ops = {
    .udp_open = record_open, .udp_send = record_send, .address = record_address};

/* ---- the tests
 * ------------------------------------------------------------------------------------ */

static void say(void *context, const char *test, const char *file, int line, const char *what)
{
    (void)context;
    printf("%s:%d: %s: %s\n", file, line, test, what);
}

static struct kit_report report = {.fail = say};
static struct recorder recorder = {.net = {&record_ops}};
static struct kit_virtual virtual;

static struct kit_console_parts parts(void)
{
    memset(recorder.sent, 0, sizeof recorder.sent[0]);
    recorder.count = 0;
    recorder.result = recorder.address = 0;
    kit_virtual_open(&virtual, NULL, 0, 1);
    virtual.epoch_ns = 0;
    return (struct kit_console_parts){.env = kit_virtual_environment(&virtual),
                                      .alloc = &heap,
                                      .net = &recorder.net,
                                      .inner = {&virtual.console, &virtual.console},
                                      .inner_count = 2};
}

/* A server at 10.1.2.3:514, facility 16, severity 6, 1024 bytes of backlog. */
static const uint64_t syslog_options[] = {0x0a010203, 514, 16, 6, 1024};

static void conform(const struct kit_console_component *component, const uint64_t *options)
{
    struct kit_console_parts all = parts();
    virtual.input = "typed";
    virtual.input_length = 5;
    kit_suite_console(component, options, &all, &report);
}

static console_interface_t *open_console(const struct kit_console_component *component,
                                         const uint64_t *options,
                                         const struct kit_console_parts *all)
{
    console_interface_t *console = NULL;
    if (component->open(options, all, &console) != 0)
        kit_panic("a console does not open");
    return console;
}

static size_t write_text(console_interface_t *console, const char *text)
{
    return kit_console_write(console, text, strlen(text));
}

/* Takes three bytes of every write, and has no input. */
static size_t slow_write(console_interface_t *console, const char *data, size_t length)
{
    (void)console, (void)data;
    return length < 3 ? length : 3;
}

static size_t slow_read(console_interface_t *console, char *buffer, size_t max_length)
{
    (void)console, (void)buffer, (void)max_length;
    return 0;
}

static void test_tee(void)
{
    console_interface_t slow = {slow_write, slow_read};
    struct kit_console_parts all = parts();
    char buffer[8];
    all.inner[0] = &slow;
    console_interface_t *tee = open_console(&kit_console_tee, NULL, &all);
    KIT_TEST(&report, "a slow console holds the others up in nothing");
    KIT_CHECK_EQUAL(&report, write_text(tee, "hello world"), 11);
    KIT_CHECK_EQUAL(&report, virtual.output_length, 11);
    KIT_CHECK(&report, memcmp(virtual.output, "hello world", 11) == 0);
    KIT_TEST(&report, "input is that of the first console that has some");
    virtual.input = "abc";
    virtual.input_length = 3;
    KIT_CHECK_EQUAL(&report, kit_console_input(tee, buffer, 8), 3);
    KIT_TEST(&report, "a tee of slow consoles says how far the best one came");
    all.inner_count = 1;
    KIT_CHECK_EQUAL(&report, write_text(open_console(&kit_console_tee, NULL, &all), "hello"), 3);
}

static void test_syslog_refusals(void)
{
    struct kit_console_parts all = parts();
    console_interface_t *console = NULL;
    static const uint64_t wrong[][5] = {{0, 514, 16, 6, 1024},   {1, 0, 16, 6, 1024},
                                        {1, 65536, 16, 6, 1024}, {1, 514, 24, 6, 1024},
                                        {1, 514, 16, 8, 1024},   {UINT64_C(1) << 32, 514, 1, 1, 1}};
    KIT_TEST(&report, "syslog refuses what no server can be");
    for (size_t i = 0; i < KIT_ARRAY_SIZE(wrong); i++)
        KIT_CHECK_EQUAL(&report, kit_console_syslog.open(wrong[i], &all, &console), KIT_EINVAL);
}

static void test_syslog_message(void)
{
    struct kit_console_parts all = parts();
    console_interface_t *console = open_console(&kit_console_syslog, syslog_options, &all);
    KIT_TEST(&report, "each line is one message with time, address and priority");
    virtual.epoch_ns = UINT64_C(
        1065910455003000000); /* RFC 5424's example: 2003-10-11 22:14:15.003 */
    virtual.epoch_ns -= virtual.clock_ns;
    write_text(console, "fir");
    KIT_CHECK_EQUAL(&report, recorder.count, 0);
    write_text(console, "st\r\n\nsecond\n");
    KIT_REQUIRE(&report, recorder.count == 2);
    const char *wanted = "<134>1 2003-10-11T22:14:15.003000Z 10.1.20.255 unikit - - - first";
    KIT_CHECK_SAYS(&report, strcmp(recorder.sent[0].text, wanted) == 0, recorder.sent[0].text);
    KIT_CHECK(&report, recorder.sent[0].to.port == 514 && recorder.sent[0].to.family == 4);
    KIT_CHECK(&report, memcmp(recorder.sent[0].to.bytes, "\x0a\x01\x02\x03", 4) == 0);
    KIT_TEST(&report, "what is not known is the nil value");
    recorder.address = KIT_ENOENT;
    virtual.epoch_ns = 0;
    recorder.count = 0;
    write_text(console, "x\n");
    KIT_CHECK_SAYS(&report, strcmp(recorder.sent[0].text, "<134>1 - - unikit - - - x") == 0,
                   recorder.sent[0].text);
    KIT_TEST(&report, "a line that is too long is cut, not lost");
    recorder.count = 0;
    for (unsigned i = 0; i < 1000; i++)
        write_text(console, "y");
    write_text(console, "\n");
    KIT_CHECK_EQUAL(&report, recorder.count, 3);
    size_t all_length = 0;
    for (size_t i = 0; i < recorder.count; i++)
        all_length += recorder.sent[i].length - strlen("<134>1 - - unikit - - - ");
    KIT_CHECK_EQUAL(&report, all_length, 1000);
}

static void test_syslog_backlog(void)
{
    struct kit_console_parts all = parts();
    console_interface_t *console = open_console(&kit_console_syslog, syslog_options, &all);
    char line[32];
    KIT_TEST(&report, "lines before the network is up wait, in order, and later ones are counted");
    recorder.result = KIT_EUNREACH;
    for (int i = 0; i < 100; i++) {
        snprintf(line, sizeof line, "line number %04d\n", i);
        KIT_CHECK_EQUAL(&report, write_text(console, line), strlen(line));
    }
    kit_console_write(console, NULL, 0);
    KIT_CHECK_EQUAL(&report, recorder.count, 0);
    recorder.result = 0;
    kit_console_write(console, NULL, 0);
    size_t kept = 1024 / (16 + 16);
    KIT_REQUIRE(&report, recorder.count == kept + 1);
    for (size_t i = 0; i < kept; i++) {
        snprintf(line, sizeof line, "line number %04zu", i);
        KIT_CHECK(&report, strstr(recorder.sent[i].text, line) != NULL);
    }
    snprintf(line, sizeof line, " %zu lines lost", 100 - kept);
    KIT_CHECK_SAYS(&report, strstr(recorder.sent[kept].text, line) != NULL,
                   recorder.sent[kept].text);
    KIT_TEST(&report, "after that everything is as before");
    recorder.count = 0;
    write_text(console, "again\n");
    KIT_CHECK_EQUAL(&report, recorder.count, 1);
}

/* Writes into a buffer as the argument says and dumps the heap around it for the Python reader. */
static int dump(int size, int rounds)
{
    struct kit_console_parts all = parts();
    const uint64_t options[] = {(uint64_t)size};
    console_interface_t *console = open_console(&kit_console_buffer, options, &all);
    char line[64];
    for (int i = 0; i < rounds; i++) {
        int length = snprintf(line, sizeof line, "%0*d\n", i % 40 + 1, i);
        kit_console_write(console, line, (size_t)length);
    }
    /* The header's address is the second word behind the console's two. */
    char *header = ((char **)(void *)console)[2];
    fwrite(header, 1, 64 + (size_t)size, stdout);
    return 0;
}

int main(int argc, char **argv)
{
    static const uint64_t buffer_options[] = {256};
    if (argc == 3)
        return dump(atoi(argv[1]), atoi(argv[2]));
    conform(&kit_console_platform, NULL);
    conform(&kit_console_null, NULL);
    conform(&kit_console_tee, NULL);
    conform(&kit_console_buffer, buffer_options);
    conform(&kit_console_syslog, syslog_options);
    test_tee();
    test_syslog_refusals();
    test_syslog_message();
    test_syslog_backlog();
    printf("%llu tests, %llu checks, %d failed\n", (unsigned long long)report.tests,
           (unsigned long long)report.checks, report.failures);
    return report.failures != 0;
}
