/* SPDX-License-Identifier: MIT */
/* The yardstick of bench_icmp.py: one process that polls a TAP and answers ARP and ICMP echo for
 * ADDRESS in place, with no stack and no guest: tap_echo DEVICE ADDRESS. Ends with its input. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const uint8_t own_mac[6] = {2, 0, 0, 0, 0, 99};

static int answer(uint8_t *frame, ssize_t size, uint32_t address)
{
    if (size >= 42 && frame[12] == 8 && frame[13] == 6 && frame[21] == 1 &&
        !memcmp(frame + 38, &address, 4)) {
        memcpy(frame, frame + 6, 6);
        memcpy(frame + 6, own_mac, 6);
        frame[21] = 2;
        memcpy(frame + 32, frame + 22, 10);
        memcpy(frame + 22, own_mac, 6);
        memcpy(frame + 28, &address, 4);
        return 1;
    }
    if (size >= 42 && frame[12] == 8 && frame[13] == 0 && frame[23] == 1 && frame[34] == 8 &&
        !memcmp(frame + 30, &address, 4)) {
        uint8_t copy[6];
        memcpy(copy, frame + 6, 6);
        memcpy(frame + 6, frame, 6);
        memcpy(frame, copy, 6);
        memcpy(frame + 30, frame + 26, 4);
        memcpy(frame + 26, &address, 4);
        frame[34] = 0; /* echo reply: the checksum grows by 0x0800 */
        uint32_t sum = (uint32_t)(frame[36] << 8 | frame[37]) + 0x0800;
        sum = (sum & 0xffff) + (sum >> 16);
        frame[36] = (uint8_t)(sum >> 8);
        frame[37] = (uint8_t)sum;
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    uint32_t address;
    if (argc != 3 || inet_pton(AF_INET, argv[2], &address) != 1)
        return 2;
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    strncpy(request.ifr_name, argv[1], IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request)) {
        perror(argv[1]);
        return 1;
    }
    fcntl(0, F_SETFL, O_NONBLOCK);
    puts("ready");
    fflush(stdout);
    uint8_t frame[2048];
    for (unsigned turn = 0;; turn++) {
        ssize_t size = read(fd, frame, sizeof frame);
        if (size > 0 && answer(frame, size, address) && write(fd, frame, (size_t)size) < 0)
            perror("write");
        char byte;
        if ((turn & 0xffff) == 0 && read(0, &byte, 1) == 0)
            return 0;
    }
}
