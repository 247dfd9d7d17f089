/* SPDX-License-Identifier: MIT */
/* An image for tests, hosted: a stack on any interface, with the services that show what a network
 * path does to data, ends of stream and resets. */
#ifndef TESTS_NET_NETIF_IMAGE_SERVICES_H
#define TESTS_NET_NETIF_IMAGE_SERVICES_H

#include <unikit/net/net.h>

enum {
    ECHO_PORT = 7,      /* TCP: sends back, ends when the peer ended and all is sent; UDP: echo */
    DISCARD_PORT = 9,   /* counts until the end, then sends the number as 8 bytes and ends */
    GENERATE_PORT = 19, /* reads a number of 8 bytes and sends as many bytes of the pattern */
    CLOSE_PORT = 13,    /* sends "bye" and ends at once */
    RESET_PORT = 14,    /* resets after the first byte */
    STALL_PORT = 15,    /* reads nothing for ever */
    HTTP_PORT = 80,     /* answers each request of one segment with 612 bytes, keep-alive */
    REFUSED_PORT = 99   /* nobody listens */
};

/* Byte `at` of the pattern that GENERATE_PORT sends. */
static inline uint8_t pattern(uint64_t at)
{
    return (uint8_t)((at * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

struct image;
struct image *image_open(const struct kit_net_component *stack, const uint64_t *options,
                         network_interface_t *network, const char *address);
struct kit_net *image_net(struct image *image);
/* Lets the image work; whether it did anything. */
bool image_run(struct image *image);
unsigned image_connections(const struct image *image);
/* Prints the connections that are still open. */
void image_report(const struct image *image);
void image_close(struct image *image);

#endif
