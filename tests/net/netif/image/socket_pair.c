/* SPDX-License-Identifier: MIT */
/* Two descriptors with a wire between them as an interface component, for the conformance suite:
 * a SOCK_SEQPACKET pair under host_fd. The option is the mtu. */
#include <sys/socket.h>

#include <unikit/net/netif/host_fd.h>

static struct kit_host_netif *opened[16]; /* for as long as the program runs */
static unsigned count;

static size_t pair_memory_size(const uint64_t *options)
{
    (void)options;
    return 64;
}

static int pair_open(const uint64_t *options, void *memory, size_t size, network_interface_t **ends)
{
    (void)memory;
    int fds[2];
    if (size < pair_memory_size(options) || count + 2 > KIT_ARRAY_SIZE(opened))
        return KIT_ENOMEM;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds))
        return KIT_EIO;
    for (uint8_t i = 0; i < 2; i++) {
        const uint8_t mac[6] = {2, 0, 0, 0, 0, i};
        int rc = kit_host_fd_open(fds[i], mac, (uint32_t)options[0], &opened[count]);
        if (rc)
            return rc;
        ends[i] = &opened[count++]->network;
    }
    return 0;
}

const struct kit_netif_component kit_netif_socket_pair;
const struct kit_netif_component kit_netif_socket_pair = {
    .id = "netif.socket_pair",
    .abi = KIT_NETIF_ABI,
    .features = KIT_NETIF_LOSSLESS,
    .ends = 2,
    .memory_size = pair_memory_size,
    .open = pair_open,
};
