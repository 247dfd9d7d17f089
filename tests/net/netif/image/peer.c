/* SPDX-License-Identifier: MIT */
/* peer FD ADDRESS OPTION...: the image of services.c on a packet socket, until it is closed. */
#include "services.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <unikit/net/netif/host_fd.h>

extern const struct kit_net_component IMAGE_STACK;

int main(int argc, char **argv)
{
    static const uint8_t mac[6] = {0x02, 0, 0, 0, 0, 0x15};
    struct kit_host_netif *netif;
    uint64_t options[64] = {0};
    if (argc < 3 || argc > 60)
        return 2;
    for (int i = 3; i < argc; i++)
        options[i - 3] = strtoull(argv[i], NULL, 0);
    struct pollfd fd = {.fd = atoi(argv[1]), .events = POLLIN};
    if (kit_host_fd_open(fd.fd, mac, 1500, &netif))
        return 2;
    struct image *image = image_open(&IMAGE_STACK, options, &netif->network, argv[2]);
    image_run(image); /* it announces itself */
    puts("ready");
    fflush(stdout);
    for (;;) {
        for (unsigned i = 0; i < 16; i++)
            image_run(image);
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        uint64_t at = (uint64_t)now.tv_sec * KIT_NS_PER_S + (uint64_t)now.tv_nsec;
        uint64_t deadline = kit_net_deadline_ns(image_net(image));
        uint64_t left = deadline > at ? deadline - at : 0;
        struct timespec timeout = {.tv_sec = left > KIT_NS_PER_S ? 1 : 0,
                                   .tv_nsec = left > KIT_NS_PER_S ? 0 : (long)left % 1000000000};
        ppoll(&fd, 1, &timeout, NULL);
        if (fd.revents & (POLLHUP | POLLERR))
            break;
    }
    int rc = kit_net_check(image_net(image));
    image_close(image);
    kit_host_fd_close(netif);
    return rc ? 1 : 0;
}
