/* SPDX-License-Identifier: MIT */
/* ICMP echo from a raw socket, one request at a time: ping ADDRESS COUNT INTERVAL_US. Prints the
 * round trip of each in microseconds; exits 1 if more than one in a hundred is lost (1 s each). */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static uint16_t checksum(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint32_t sum = 0;
    for (size_t i = 0; i < size; i += 2)
        sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    long count = atol(argv[2]), interval = atol(argv[3]), lost = 0;
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    struct sockaddr_in to = {.sin_family = AF_INET};
    if (fd < 0 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1 ||
        connect(fd, (struct sockaddr *)&to, sizeof to)) {
        perror("ping");
        return 2;
    }
    for (long i = 0; i < count; i++) {
        struct {
            struct icmphdr header;
            char payload[56];
        } request = {.header = {.type = ICMP_ECHO,
                                .un.echo = {(uint16_t)getpid(), (uint16_t)i}}};
        request.header.checksum = checksum(&request, sizeof request);
        double start = now_us();
        send(fd, &request, sizeof request, 0);
        for (;;) {
            struct pollfd poller = {fd, POLLIN, 0};
            uint8_t reply[256];
            if (poll(&poller, 1, 1000) <= 0) {
                lost++;
                break;
            }
            ssize_t size = recv(fd, reply, sizeof reply, 0);
            struct icmphdr *header = (struct icmphdr *)(reply + (reply[0] & 15) * 4);
            if (size < 28 || header->type != ICMP_ECHOREPLY ||
                header->un.echo.sequence != (uint16_t)i)
                continue;
            printf("%.2f\n", now_us() - start);
            break;
        }
        if (interval > 0)
            usleep((useconds_t)interval);
    }
    fprintf(stderr, "%ld lost\n", lost);
    return lost * 100 > count;
}
