/* SPDX-License-Identifier: MIT */
/* The conformance suite of network interfaces. Frames follow from a number, so what comes out is
 * compared byte for byte with what must have gone in. */
#include <unikit/testing/suite_netif.h>

enum { LONGEST = 2048, BATCH = 8, MANY = 70000 };

struct netif_suite {
    struct kit_report *report;
    const struct kit_netif_component *component;
    network_interface_t *ends[KIT_NETIF_ENDS_MAX];
    size_t longest; /* frame that the tests use */
    uint64_t random;
    uint8_t frame[LONGEST];
    uint8_t wanted[LONGEST];
};

/* The number-th frame between two ends: length and bytes. */
static size_t netif_frame(struct netif_suite *s, uint64_t number, uint8_t *out)
{
    uint64_t state = number;
    size_t length =
        KIT_NETIF_HEADER + kit_suite_random(&state) % (s->longest - KIT_NETIF_HEADER + 1);
    for (size_t i = 0; i < length; i++)
        out[i] = (uint8_t)(number * 31 + i * 7 + (i >> 8));
    return length;
}

static bool netif_is(struct netif_suite *s, uint64_t number, const uint8_t *data, size_t length)
{
    return netif_frame(s, number, s->wanted) == length && memcmp(data, s->wanted, length) == 0;
}

static int netif_give(struct netif_suite *s, network_interface_t *end, uint64_t number)
{
    size_t length = netif_frame(s, number, s->frame);
    return kit_netif_send(end, s->frame, length);
}

static bool netif_take(struct netif_suite *s, network_interface_t *end, uint64_t number)
{
    int got = kit_netif_receive(end, s->frame, sizeof s->frame);
    return got > 0 && netif_is(s, number, s->frame, (size_t)got);
}

static void netif_test_opened(struct netif_suite *s)
{
    KIT_TEST(s->report, "an opened end is complete");
    for (uint32_t i = 0; i < s->component->ends; i++) {
        network_interface_t *end = s->ends[i];
        KIT_REQUIRE(s->report, end != NULL);
        KIT_CHECK(s->report, end->send_packet && end->receive_packet && end->configure &&
                                 end->send_batch && end->receive_batch);
        KIT_CHECK(s->report, (end->mac[0] & 1) == 0);
        KIT_CHECK(s->report, end->mtu >= 68);
        KIT_CHECK_EQUAL(s->report, kit_netif_receive(end, s->frame, sizeof s->frame), 0);
        for (uint32_t j = 0; j < i; j++)
            KIT_CHECK(s->report, memcmp(end->mac, s->ends[j]->mac, 6) != 0);
    }
}

static void netif_test_configure(struct netif_suite *s)
{
    network_interface_t *end = s->ends[0];
    KIT_TEST(s->report, "configure checks the syntax");
    KIT_CHECK_EQUAL(s->report, kit_netif_configure(end, "10.0.0.2", "255.255.255.0"), 0);
    static const char *const bad[][2] = {{"10.0.0", "255.255.255.0"},
                                         {"10.0.0.256", "255.255.255.0"},
                                         {"", "255.0.0.0"},
                                         {"10.0.0.2 ", "255.0.0.0"},
                                         {"10.0.0.2", "255.0.255.0"},
                                         {"10.0.0.2", "x"},
                                         {"10.0.0.2/24", "255.0.0.0"},
                                         {"10.0.0.2", ""},
                                         {"10..0.2", "255.0.0.0"},
                                         {"10.0.0.0002", "255.0.0.0"}};
    for (size_t i = 0; i < KIT_ARRAY_SIZE(bad); i++)
        KIT_CHECK_EQUAL(s->report, kit_netif_configure(end, bad[i][0], bad[i][1]), KIT_EINVAL);
}

static void netif_test_lengths(struct netif_suite *s, network_interface_t *from,
                               network_interface_t *to)
{
    size_t longest = (size_t)from->mtu + KIT_NETIF_HEADER;
    KIT_TEST(s->report, "frames from the header alone to the mtu pass, others are refused");
    KIT_CHECK_EQUAL(s->report, kit_netif_send(from, s->frame, KIT_NETIF_HEADER - 1), KIT_EMSGSIZE);
    KIT_CHECK_EQUAL(s->report, kit_netif_send(from, s->frame, 0), KIT_EMSGSIZE);
    if (longest + 1 <= sizeof s->frame) {
        KIT_CHECK_EQUAL(s->report, kit_netif_send(from, s->frame, longest + 1), KIT_EMSGSIZE);
        KIT_CHECK_EQUAL(s->report, kit_netif_send(from, s->frame, longest), 0);
        KIT_CHECK_EQUAL(s->report, kit_netif_receive(to, s->frame, sizeof s->frame), longest);
    }
    KIT_CHECK_EQUAL(s->report, kit_netif_send(from, s->frame, KIT_NETIF_HEADER), 0);
    KIT_CHECK_EQUAL(s->report, kit_netif_receive(to, s->frame, sizeof s->frame), KIT_NETIF_HEADER);
    KIT_CHECK_EQUAL(s->report, kit_netif_receive(to, s->frame, sizeof s->frame), 0);
}

static void netif_test_short_buffer(struct netif_suite *s, network_interface_t *from,
                                    network_interface_t *to)
{
    KIT_TEST(s->report, "a frame longer than the buffer is dropped alone, and nothing overwritten");
    memset(s->frame, 1, 64);
    KIT_CHECK_EQUAL(s->report, kit_netif_send(from, s->frame, 64), 0);
    int rc = netif_give(s, from, 5); /* waits behind the first, if there is room for two */
    uint8_t small[32];
    memset(small, 0xee, sizeof small);
    KIT_CHECK_EQUAL(s->report, kit_netif_receive(to, small, 20), KIT_EMSGSIZE);
    for (size_t i = 20; i < sizeof small; i++)
        KIT_CHECK_EQUAL(s->report, small[i], 0xee);
    if (rc == KIT_EAGAIN)
        rc = netif_give(s, from, 5);
    KIT_CHECK_EQUAL(s->report, rc, 0);
    KIT_CHECK(s->report, netif_take(s, to, 5));
}

static void netif_test_full(struct netif_suite *s, network_interface_t *from,
                            network_interface_t *to)
{
    KIT_TEST(s->report, "a full interface refuses, loses nothing and goes on");
    uint64_t sent = 0, received = 0;
    int rc = 0;
    while (sent < MANY && (rc = netif_give(s, from, sent)) == 0)
        sent++;
    KIT_CHECK_EQUAL(s->report, rc, KIT_EAGAIN);
    KIT_CHECK(s->report, sent > 0);
    KIT_CHECK(s->report, netif_take(s, to, received++));
    KIT_CHECK_EQUAL(s->report, netif_give(s, from, sent), 0);
    sent++;
    KIT_CHECK_EQUAL(s->report, netif_give(s, from, sent), KIT_EAGAIN);
    while (received < sent && KIT_CHECK(s->report, netif_take(s, to, received)))
        received++;
    KIT_CHECK_EQUAL(s->report, kit_netif_receive(to, s->frame, sizeof s->frame), 0);
}

/* Random sends and receives, single and in batches, in both directions. */
static void netif_test_order(struct netif_suite *s)
{
    network_interface_t *ends[2] = {s->ends[0], s->ends[s->component->ends - 1]};
    unsigned ways = s->component->ends == 1 ? 1 : 2;
    uint64_t sent[2] = {0, 0}, received[2] = {0, 0};
    KIT_TEST(s->report, "frames arrive complete and in order, whoever sends and however");
    for (unsigned step = 0; step < 4000; step++) {
        unsigned way = (unsigned)(kit_suite_random(&s->random) % ways);
        if (kit_suite_random(&s->random) % 2 == 0) {
            int rc = netif_give(s, ends[way], sent[way] * 2 + way);
            if (rc != KIT_EAGAIN && KIT_CHECK_EQUAL(s->report, rc, 0))
                sent[way]++;
        } else if (received[way] < sent[way]) {
            KIT_REQUIRE(s->report, netif_take(s, ends[ways - 1 - way], received[way] * 2 + way));
            received[way]++;
        }
    }
    for (unsigned way = 0; way < ways; way++) {
        while (received[way] < sent[way]) {
            KIT_REQUIRE(s->report, netif_take(s, ends[ways - 1 - way], received[way] * 2 + way));
            received[way]++;
        }
        KIT_CHECK_EQUAL(s->report,
                        kit_netif_receive(ends[ways - 1 - way], s->frame, sizeof s->frame), 0);
    }
}

static void netif_test_batches(struct netif_suite *s, network_interface_t *from,
                               network_interface_t *to)
{
    uint8_t data[BATCH][128];
    struct kit_frame frames[BATCH] = {{0}};
    KIT_TEST(s->report, "a batch is taken up to the first frame that cannot be");
    for (unsigned i = 0; i < BATCH; i++) {
        memset(data[i], (int)i + 1, sizeof data[i]);
        frames[i] = (struct kit_frame){.data = data[i], .length = 20 + i};
    }
    frames[1].length = KIT_NETIF_HEADER - 1;
    KIT_CHECK_EQUAL(s->report, kit_netif_send_batch(from, frames, 2), 1);
    KIT_CHECK_EQUAL(s->report, kit_netif_send_batch(from, frames + 1, 1), KIT_EMSGSIZE);
    if (from->offloads == 0) { /* nobody would fill the checksum in */
        frames[1] = (struct kit_frame){.data = data[1], .length = 21, .flags = 1};
        KIT_CHECK(s->report, kit_netif_send_batch(from, frames + 1, 1) < 0);
        frames[1] = (struct kit_frame){.data = data[1], .length = 21, .gso_type = 1};
        KIT_CHECK(s->report, kit_netif_send_batch(from, frames + 1, 1) < 0);
    }
    for (unsigned i = 0; i < BATCH; i++)
        frames[i] = (struct kit_frame){.data = data[i], .capacity = sizeof data[i], .flags = 1};
    KIT_CHECK_EQUAL(s->report, kit_netif_receive_batch(to, frames, BATCH), 1);
    KIT_CHECK_EQUAL(s->report, frames[0].length, 20);
    KIT_CHECK_EQUAL(s->report, frames[0].flags, 0);
    KIT_CHECK_EQUAL(s->report, frames[0].capacity, sizeof data[0]);
    KIT_CHECK_EQUAL(s->report, data[0][19], 1);
    KIT_CHECK_EQUAL(s->report, kit_netif_receive_batch(to, frames, BATCH), 0);
}

static void netif_test_batch_full(struct netif_suite *s, network_interface_t *from,
                                  network_interface_t *to)
{
    uint8_t data[BATCH][32];
    struct kit_frame frames[BATCH];
    uint64_t sent = 0, received = 0;
    KIT_TEST(s->report, "batches fill and empty an interface without loss");
    for (int taken = 1; taken > 0 && sent < MANY; sent += (uint64_t)(taken > 0 ? taken : 0)) {
        for (unsigned i = 0; i < BATCH; i++) {
            memset(data[i], 0, sizeof data[i]);
            memcpy(data[i], &(uint64_t){sent + i}, 8);
            frames[i] = (struct kit_frame){.data = data[i], .length = sizeof data[i]};
        }
        taken = kit_netif_send_batch(from, frames, BATCH);
        KIT_CHECK(s->report, taken <= BATCH && (taken > 0 || taken == KIT_EAGAIN));
    }
    for (;;) {
        for (unsigned i = 0; i < BATCH; i++)
            frames[i] = (struct kit_frame){.data = data[i], .capacity = sizeof data[i]};
        int got = kit_netif_receive_batch(to, frames, BATCH);
        if (got <= 0)
            break;
        for (int i = 0; i < got; i++) {
            uint64_t number;
            memcpy(&number, data[i], 8);
            KIT_CHECK_EQUAL(s->report, number, received++);
        }
    }
    KIT_CHECK_EQUAL(s->report, received, sent);
}

int kit_suite_netif(const struct kit_netif_component *component, const uint64_t *options,
                    void *memory, size_t size, struct kit_report *report)
{
    struct netif_suite s = {.report = report, .component = component, .random = 1};
    int before = report->failures;
    KIT_TEST(report, "memory is asked for, and used, as announced");
    size_t need = component->memory_size(options);
    if (!KIT_CHECK(report, need != 0))
        return report->failures - before;
    if (size < need)
        return KIT_ENOMEM;
    memset(memory, 0xa5, size); /* memory need not be clear */
    KIT_CHECK_EQUAL(report, component->open(options, memory, need - 1, s.ends), KIT_ENOMEM);
    if (!KIT_CHECK_EQUAL(report, component->open(options, memory, need, s.ends), 0))
        return report->failures - before;
    network_interface_t *first = s.ends[0], *last = s.ends[component->ends - 1];
    s.longest = (size_t)first->mtu + KIT_NETIF_HEADER;
    if (s.longest > LONGEST)
        s.longest = LONGEST;
    netif_test_opened(&s);
    netif_test_configure(&s);
    netif_test_lengths(&s, first, last);
    netif_test_lengths(&s, last, first);
    netif_test_short_buffer(&s, first, last);
    netif_test_batches(&s, last, first);
    if ((component->features & KIT_NETIF_LOSSLESS) != 0) {
        netif_test_full(&s, first, last);
        netif_test_full(&s, last, first);
        netif_test_order(&s);
        netif_test_batch_full(&s, first, last);
    }
    for (size_t i = need; i < size; i++)
        KIT_CHECK_EQUAL(report, ((const uint8_t *)memory)[i], 0xa5);
    return report->failures - before;
}
